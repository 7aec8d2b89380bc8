package noderestriction

import (
	"context"
	"errors"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// token lets a node have tokens that are bound to one of its pods, for an audience that the pod asks for.
func (r *Restriction) token(ctx context.Context, node string, a *registry.AdmissionRequest) error {
	if a.Operation != registry.OpCreate || a.Subresource != "token" {
		return nil
	}
	req, ok := a.Body.(*authenticationv1.TokenRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.Body)
	}
	ref := req.Spec.BoundObjectRef
	switch {
	case ref == nil || ref.APIVersion != kube.Pod.GroupVersion().String() || ref.Kind != kube.Pod.Kind || ref.Name == "":
		return errors.New("node requested token not bound to a pod")
	case ref.UID == "":
		return errors.New("node requested token with a pod binding without a uid")
	}
	pod, ok := control.Get[*corev1.Pod](r.objects, kube.Pod, a.Namespace, ref.Name)
	switch {
	case !ok:
		return apierrors.NewNotFound(corev1.Resource("pods"), ref.Name)
	case ref.UID != pod.UID:
		return fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID) // upstream's text
	case pod.Spec.NodeName != node:
		return errors.New("node requested token bound to a pod scheduled on a different node")
	}
	return r.audience(ctx, a, pod, req.Spec.Audiences)
}

// audience refuses a token for an audience that nothing in the pod asks for, unless the node may have such tokens by a role.
func (r *Restriction) audience(ctx context.Context, a *registry.AdmissionRequest, pod *corev1.Pod, audiences []string) error {
	audience := ""
	switch len(audiences) {
	case 0:
	case 1:
		audience = audiences[0]
	default:
		return errors.New("node may only request 0 or 1 audiences")
	}
	if mountsToken(pod, audience) || r.driverTakes(pod, audience) {
		return nil
	}
	refused := fmt.Errorf("audience %q not found in pod spec volume, %s is not authorized to request tokens for this audience", audience, a.User.Name)
	if r.authorizer == nil {
		return refused
	}
	ok, _, err := r.authorizer.Authorize(ctx, a.User, auth.Attributes{
		Verb: "request-serviceaccounts-token-audience", Resource: true, APIVersion: "v1", Plural: audience, Namespace: a.Namespace, Name: a.Name,
	})
	switch {
	case err != nil:
		return fmt.Errorf("audience %q not found in pod spec volume, error authorizing %s to request tokens for this audience: %w", audience, a.User.Name, err)
	case !ok:
		return refused
	}
	return nil
}

// driverTakes reports whether the CSI driver of one of the pod's volumes wants tokens for an audience.
func (r *Restriction) driverTakes(pod *corev1.Pod, audience string) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		name := ""
		if v.CSI != nil {
			name = v.CSI.Driver
		} else if claim := claimOf(pod, v); claim != "" {
			name = r.driverOf(pod.Namespace, claim)
		}
		driver, ok := control.Get[*storagev1.CSIDriver](r.objects, kube.CSIDriver, "", name)
		if ok && slices.ContainsFunc(driver.Spec.TokenRequests, func(t storagev1.TokenRequest) bool { return t.Audience == audience }) {
			return true
		}
	}
	return false
}

// driverOf returns the CSI driver of a claim's volume; "" when it has none.
func (r *Restriction) driverOf(namespace, claim string) string {
	c, ok := control.Get[*corev1.PersistentVolumeClaim](r.objects, kube.PersistentVolumeClaim, namespace, claim)
	if !ok {
		return ""
	}
	v, ok := control.Get[*corev1.PersistentVolume](r.objects, kube.PersistentVolume, "", c.Spec.VolumeName)
	if !ok || v.Spec.CSI == nil {
		return ""
	}
	return v.Spec.CSI.Driver
}
