package crd

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// finalize deletes the objects of a definition that is being deleted, and lets it go when there are none.
func (c *Controller) finalize(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) error {
	if !slices.Contains(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		return nil
	}
	next := crd.DeepCopy()
	done, err := c.deleteObjects(ctx, next)
	if done {
		apihelpers.CRDRemoveFinalizer(next, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	if done || !apiequality.Semantic.DeepEqual(crd.Status, next.Status) {
		if _, uerr := c.client.Update(ctx, next, "status"); uerr != nil {
			return control.IgnoreNotFound(uerr)
		}
	}
	return err
}

// deleteObjects deletes the objects of crd, and sets its condition Terminating. done: none is left.
func (c *Controller) deleteObjects(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition) (done bool, err error) {
	terminating := func(status apiextensionsv1.ConditionStatus, reason, message string) {
		setCondition(crd, apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.Terminating, Status: status, Reason: reason, Message: message})
	}
	if !servable(crd) {
		terminating(apiextensionsv1.ConditionFalse, "NeverEstablished", "resource was never established")
		return true, nil
	}
	if err := c.serve(crd); err != nil {
		return false, err
	}
	c.mu.Lock()
	kind := c.served[crd.Name].stored()
	c.mu.Unlock()
	if kind == nil {
		terminating(apiextensionsv1.ConditionFalse, "OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
		return true, nil
	}
	c.follow(ctx, crd, kind.GVK)
	if err := c.client.CatchUp(ctx); err != nil {
		return false, err
	}
	var errs []error
	for _, obj := range c.client.List(kind.GVK, "") {
		if obj.GetDeletionTimestamp() != nil {
			continue
		}
		uid := obj.GetUID()
		err := c.client.Delete(ctx, kind.GVK, obj.GetNamespace(), obj.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if !apierrors.IsConflict(err) { // another object of that name: this runs again
			errs = append(errs, control.IgnoreNotFound(err))
		}
	}
	if err := control.JoinErrors(errs...); err != nil {
		terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionFailed", fmt.Sprintf("could not issue all deletes: %v", err))
		return false, err
	}
	if err := c.client.CatchUp(ctx); err != nil {
		return false, err
	}
	if len(c.client.List(kind.GVK, "")) > 0 {
		terminating(apiextensionsv1.ConditionTrue, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
		return false, nil
	}
	terminating(apiextensionsv1.ConditionFalse, "InstanceDeletionCompleted", "removed all instances")
	return true, nil
}

// follow reconciles crd again after changes of its objects, which finalizers may hold, until its kinds are no longer served.
func (c *Controller) follow(ctx context.Context, crd *apiextensionsv1.CustomResourceDefinition, gvk kube.GVK) {
	c.mu.Lock()
	d := c.served[crd.Name]
	followed := d.unfollow != nil
	if !followed {
		ctx, d.unfollow = context.WithCancel(ctx)
	}
	c.mu.Unlock()
	if followed {
		return
	}
	key := control.KeyOf(crd)
	c.client.Subscribe(ctx, func(ch control.Change) {
		if ch.New == nil {
			c.loop.Enqueue(key)
		}
	}, gvk)
}
