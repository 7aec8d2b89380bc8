package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
)

// Delete removes an object, or begins to: it stays, marked, while it has finalizers or a grace period.
func (r *Registry) Delete(ctx context.Context, t resource.Target, opts *metav1.DeleteOptions) (*Result, error) {
	if opts == nil {
		opts = &metav1.DeleteOptions{}
	}
	if err := InvalidOptions("DeleteOptions", validation.ValidateDeleteOptions(opts)); err != nil {
		return nil, err
	}
	ctx, q, err := r.resolve(ctx, "delete", t, options{dryRun: opts.DryRun, preconditions: opts.Preconditions})
	if err != nil {
		return nil, err
	}
	p, res, err := r.change(ctx, q, func(cur *current) (*plan, error) {
		if cur == nil {
			return nil, notFound(t.Kind, t.Name)
		}
		return r.planDelete(ctx, q, cur, opts.DeepCopy())
	})
	if err != nil {
		return nil, err
	}
	if !p.remove {
		//lint:ignore SA1019 deprecated, and still honoured
		res.Accepted = opts.OrphanDependents != nil && !*opts.OrphanDependents
		return res, nil
	}
	if !q.kind.ReturnDeletedObject {
		return success(0, deletedDetails(t.Kind, t.Name, p.obj.GetUID()))
	}
	return res, nil
}

// planDelete decides what a deletion does now. It owns opts.
func (r *Registry) planDelete(ctx context.Context, q *request, cur *current, opts *metav1.DeleteOptions) (*plan, error) {
	k := q.kind
	if err := checkPreconditions(k, cur, q.Preconditions); err != nil {
		return nil, err
	}
	if q.handler() == nil { // a verb that deletes, such as an eviction, has been admitted as itself
		a := q.admission(OpDelete, nil, cur.obj)
		a.Options = opts
		if err := r.admit(ctx, a, nil); err != nil {
			return nil, err
		}
	}
	p := &plan{kind: k, key: cur.entry.Key, old: cur, obj: cur.obj.DeepCopyObject().(kube.Object), frees: true}
	switch markDeleted(k, p.obj, opts, r.now().Truncate(time.Second)) {
	case pending:
		return p, nil
	case gone:
		p.remove = true
		return p, p.encode(ctx)
	}
	return p, p.encodeChange(ctx)
}

// planRemoval removes an object for good: its grace period is over, and it has no finalizers.
func (r *Registry) planRemoval(ctx context.Context, q *request, cur *current) (*plan, error) {
	if err := r.admit(ctx, q.admission(OpDelete, nil, cur.obj), nil); err != nil {
		return nil, err
	}
	p := &plan{kind: q.kind, key: cur.entry.Key, old: cur, remove: true, obj: cur.obj.DeepCopyObject().(kube.Object)}
	return p, p.encode(ctx)
}

// checkPreconditions refuses cur, with upstream's texts, when it is not the object that a deletion names; nil names any.
func checkPreconditions(k *resource.Kind, cur *current, pre *metav1.Preconditions) error {
	if pre == nil {
		return nil
	}
	name := cur.obj.GetName()
	if uid := cur.obj.GetUID(); pre.UID != nil && *pre.UID != uid {
		return conflict(k, name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *pre.UID, uid)) // upstream's text
	}
	if rv := objects.FormatRevision(cur.entry.Rev); pre.ResourceVersion != nil && *pre.ResourceVersion != rv {
		return conflict(k, name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *pre.ResourceVersion, rv)) // upstream's text
	}
	return nil
}

// fate is what becomes of an object that is being deleted.
type fate int

const (
	gone    fate = iota // it is removed
	marked              // it stays for now, changed
	pending             // it stays as it is: an earlier deletion is under way
)

// markDeleted is the whole rule of deletion, on a copy of the object: grace period, finalizers, garbage collection policy.
func markDeleted(k *resource.Kind, obj kube.Object, opts *metav1.DeleteOptions, now time.Time) fate {
	if k.Finalizers != nil { // of the spec: what the object represents is deleted first
		if obj.GetDeletionTimestamp() == nil {
			beginDeletion(obj, now, nil)
			setPolicyFinalizers(k, obj, opts)
			if k.Terminating != nil {
				k.Terminating(obj)
			}
			return marked
		}
		if len(k.Finalizers(obj)) > 0 {
			return pending
		}
	}
	graceful, wait := false, int64(0)
	if k.Grace != nil {
		var f fate
		if graceful, wait, f = applyGrace(k, obj, opts, now); f == pending {
			return pending
		}
	}
	setPolicyFinalizers(k, obj, opts)
	finalizers := len(obj.GetFinalizers()) > 0
	switch {
	case graceful && (finalizers || wait > 0):
		return marked
	case finalizers:
		if at := obj.GetDeletionTimestamp(); at == nil || at.After(now) {
			beginDeletion(obj, now, nil)
		}
		zero := int64(0)
		obj.SetDeletionGracePeriodSeconds(&zero)
		return marked
	}
	return gone
}

// applyGrace sets, or shortens, the time that the object has to end by itself. A grace period never grows.
func applyGrace(k *resource.Kind, obj kube.Object, opts *metav1.DeleteOptions, now time.Time) (graceful bool, wait int64, f fate) {
	if g := opts.GracePeriodSeconds; g != nil && *g < 0 {
		one := int64(1)
		opts.GracePeriodSeconds = &one
	}
	if at := obj.GetDeletionTimestamp(); at != nil {
		had := obj.GetDeletionGracePeriodSeconds()
		if had == nil || *had == 0 {
			return false, 0, gone
		}
		if opts.GracePeriodSeconds == nil || *opts.GracePeriodSeconds >= *had {
			return false, 0, pending
		}
		wait = *opts.GracePeriodSeconds
		until := at.Add(kube.Seconds(wait - *had))
		if until.Before(now) {
			until = now
			if wait != 0 {
				wait = 1 // over already, but a deletion with a grace period still gets an orderly end
			}
		}
		stamp := metav1.NewTime(until)
		obj.SetDeletionTimestamp(&stamp)
		obj.SetDeletionGracePeriodSeconds(&wait)
		return true, wait, marked
	}
	wait = k.Grace(obj, opts)
	beginDeletion(obj, now.Add(kube.Seconds(wait)), &wait)
	return true, wait, marked
}

// beginDeletion marks obj as being deleted. The first mark counts as a change of the spec, so it raises the generation.
func beginDeletion(obj kube.Object, at time.Time, grace *int64) {
	if obj.GetDeletionTimestamp() == nil && obj.GetGeneration() > 0 {
		obj.SetGeneration(obj.GetGeneration() + 1)
	}
	stamp := metav1.NewTime(at)
	obj.SetDeletionTimestamp(&stamp)
	if grace != nil {
		obj.SetDeletionGracePeriodSeconds(grace)
	}
}

// setPolicyFinalizers sets the finalizers by which the garbage collector knows what to do with the dependents before the object may
// go.
func setPolicyFinalizers(k *resource.Kind, obj kube.Object, opts *metav1.DeleteOptions) {
	if k.NoGarbageCollection {
		return
	}
	order := policyFinalizer(k, obj, opts)
	next := slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool {
		return f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents
	})
	if order != "" {
		next = append(next, order)
	}
	had := obj.GetFinalizers()
	if len(had) == len(next) && !slices.ContainsFunc(next, func(f string) bool { return !slices.Contains(had, f) }) {
		return
	}
	obj.SetFinalizers(next)
}

func policyFinalizer(k *resource.Kind, obj kube.Object, opts *metav1.DeleteOptions) string {
	//lint:ignore SA1019 deprecated, and still honoured
	if orphan := opts.OrphanDependents; orphan != nil {
		if *orphan {
			return metav1.FinalizerOrphanDependents
		}
		return ""
	}
	if opts.PropagationPolicy != nil {
		switch *opts.PropagationPolicy {
		case metav1.DeletePropagationOrphan:
			return metav1.FinalizerOrphanDependents
		case metav1.DeletePropagationForeground:
			return metav1.FinalizerDeleteDependents
		}
		return ""
	}
	for _, f := range obj.GetFinalizers() {
		if f == metav1.FinalizerOrphanDependents || f == metav1.FinalizerDeleteDependents {
			return f
		}
	}
	if k.OrphanDependents {
		return metav1.FinalizerOrphanDependents
	}
	return ""
}

// collectionWorkers delete at the same time, so that their commits share an fsync.
const collectionWorkers = 16

// DeleteCollection deletes what list selects, one by one by the rules of Delete, and returns what it found. An
// object that is gone meanwhile is no error; after another error the rest may or may not be deleted, as in Kubernetes.
func (r *Registry) DeleteCollection(ctx context.Context, t resource.Target, opts *metav1.DeleteOptions, list *metav1.ListOptions) (*ListResult, error) {
	if err := r.writable(t); err != nil {
		return nil, err
	}
	found, entries, err := r.list(ctx, t, list)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan string)
	var wg sync.WaitGroup
	for range min(collectionWorkers, len(entries)) {
		wg.Go(func() {
			for key := range work {
				one := t
				one.Namespace, one.Name, _ = resource.NamesOf(t.Kind, key)
				err := contain.Do(r.log, "registry/deletecollection", key, func() error {
					_, err := r.Delete(ctx, one, opts.DeepCopy())
					return err
				})
				if err != nil && !apierrors.IsNotFound(err) {
					cancel(err)
				}
			}
		})
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			break
		}
		if r.readOnly(e.Key) == nil {
			work <- e.Key
		}
	}
	close(work)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, storeFailure(t.Kind, "deletecollection", context.Cause(ctx))
	}
	return found, nil
}
