package registry

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// client is control.Client in process: the same rules as over HTTP, without encoding anything for transport. It reads the cache.
type client struct {
	*objects.Cache
	r  *Registry
	as auth.Component // whose user and field manager its writes have
}

// Client returns the client of the hub itself.
func (r *Registry) Client() control.Client { return r.ClientAs(auth.Hub) }

// ClientAs returns what controllers, the scheduler's driver and the dispatcher use: its requests have the user
// of as, and are not authorized. Objects that its methods return are shared, as all objects of control.Reader: read-only. Objects that are
// passed to it are only read.
func (r *Registry) ClientAs(as auth.Component) control.Client { return &client{r.objects, r, as} }

// target returns the target that obj names.
func (c *client) target(obj kube.Object) (resource.Target, error) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "" {
		gvks, _, err := resource.Scheme().ObjectKinds(obj)
		if err != nil || len(gvks) == 0 {
			return resource.Target{}, apierrors.NewBadRequest(fmt.Sprintf("%T: its kind is not served", obj))
		}
		gvk = gvks[0]
	}
	k := c.r.kindFor(gvk)
	if k == nil {
		return resource.Target{}, apierrors.NewBadRequest(fmt.Sprintf("%s is not served", gvk))
	}
	return resource.Target{Kind: k, Namespace: obj.GetNamespace(), Name: obj.GetName()}, nil
}

// in returns the context of a request of this client. done must be called when it has been answered: as over HTTP, what
// admission keeps for a request ends with its context.
func (c *client) in(ctx context.Context) (_ context.Context, done context.CancelFunc) {
	return context.WithCancel(auth.WithUser(ctx, c.as.User))
}

// Create implements control.Writer.
func (c *client) Create(ctx context.Context, obj kube.Object) (kube.Object, error) {
	t, err := c.target(obj)
	if err != nil {
		return nil, err
	}
	t.Name = ""
	ctx, done := c.in(ctx)
	defer done()
	return asObject(c.r.Create(ctx, t, obj.DeepCopyObject(), &metav1.CreateOptions{FieldManager: c.as.Manager}))
}

// Update implements control.Writer.
func (c *client) Update(ctx context.Context, obj kube.Object, sub string) (kube.Object, error) {
	t, err := c.target(obj)
	if err != nil {
		return nil, err
	}
	t.Subresource = sub
	body := obj.DeepCopyObject().(kube.Object)
	if sub == "" && t.Kind.Stored().Partial(obj) {
		if body, err = c.r.whole(ctx, t, obj); err != nil {
			return nil, err
		}
	}
	ctx, done := c.in(ctx)
	defer done()
	return asObject(c.r.Update(ctx, t, body, &metav1.UpdateOptions{FieldManager: c.as.Manager}))
}

// whole returns the stored object with the metadata of obj, which is the part of it that loops see: the rest of it is not theirs to
// change.
func (r *Registry) whole(ctx context.Context, t resource.Target, obj kube.Object) (kube.Object, error) {
	cur, err := r.current(ctx, t.Kind, resource.Key(t.Kind, t.Namespace, t.Name))
	if err != nil {
		return nil, err
	}
	if cur == nil {
		return nil, notFound(t.Kind, t.Name)
	}
	return completed(cur, obj), nil
}

// completed returns the object of cur with what loops see and may change of it, as obj has that.
func completed(cur *current, obj kube.Object) kube.Object {
	out := cur.obj.DeepCopyObject().(kube.Object)
	out.SetResourceVersion(obj.GetResourceVersion())
	out.SetUID(obj.GetUID())
	out.SetLabels(obj.GetLabels())
	out.SetFinalizers(emptyAsNil(obj.GetFinalizers()))
	out.SetOwnerReferences(emptyAsNil(obj.GetOwnerReferences()))
	if _, ok := obj.(*metav1.PartialObjectMetadata); !ok {
		out.SetAnnotations(obj.GetAnnotations())
	}
	return out
}

// emptyAsNil keeps an object without a Go type from showing a list of nothing.
func emptyAsNil[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

// asObject returns the object of a result, which the registry has in its typed form after every write.
func asObject(res *Result, err error) (kube.Object, error) {
	if err != nil {
		return nil, err
	}
	obj, ok := res.Object.(kube.Object)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("%T is no object", res.Object))
	}
	return obj, nil
}

// Delete implements control.Writer.
func (c *client) Delete(ctx context.Context, gvk kube.GVK, namespace, name string, opts metav1.DeleteOptions) error {
	k := c.r.kindFor(gvk)
	if k == nil {
		return apierrors.NewBadRequest(fmt.Sprintf("%s is not served", gvk))
	}
	ctx, done := c.in(ctx)
	defer done()
	_, err := c.r.Delete(ctx, resource.Target{Kind: k, Namespace: namespace, Name: name}, &opts)
	return err
}

// Commit implements control.Writer. A write that would change nothing is left out. No object may occur twice. A subresource
// that has a Handler gets the object as its body; it needs no Old where the handler knows what it may change.
func (c *client) Commit(ctx context.Context, writes []control.Write) error {
	ctx, done := c.in(ctx)
	defer done()
	plans := make([]*plan, 0, len(writes))
	kinds := make([]*resource.Kind, 0, len(writes)) // of plans, in the versions of the writes
	for _, w := range writes {
		q, p, err := c.plan(ctx, w)
		if err != nil {
			return err
		}
		if p.noop() {
			continue
		}
		plans, kinds = append(plans, p), append(kinds, q.Kind)
	}
	if len(plans) == 0 {
		return nil
	}
	_, err := c.r.commit(ctx, plans...)
	var lost *sqlstore.ConflictError
	if !errors.As(err, &lost) {
		if err != nil {
			return storeFailure(kinds[0], "update", err)
		}
		return nil
	}
	for i, p := range plans {
		if p.key != lost.Key {
			continue
		}
		switch name := p.obj.GetName(); {
		case p.old == nil:
			return apierrors.NewAlreadyExists(kinds[i].Resource(), name)
		case lost.Have == 0:
			return notFound(kinds[i], name)
		default:
			return modified(kinds[i], name)
		}
	}
	return apierrors.NewInternalError(err)
}

// plan decides one write of a Commit.
func (c *client) plan(ctx context.Context, w control.Write) (*request, *plan, error) {
	subject := w.Object
	if subject == nil {
		subject = w.Old
	}
	if subject == nil {
		return nil, nil, apierrors.NewBadRequest("a write needs an object")
	}
	t, err := c.target(subject)
	if err != nil {
		return nil, nil, err
	}
	t.Subresource = w.Subresource
	o := options{manager: c.as.Manager}
	if w.Old != nil {
		version := w.Old.GetResourceVersion()
		o.preconditions = &metav1.Preconditions{ResourceVersion: &version}
	}
	verb := writeVerb(t, w)
	if verb == "create" && t.Subresource == "" {
		t.Name = ""
	}
	ctx, q, err := c.r.resolve(ctx, verb, t, o)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.r.planWrite(ctx, q, w)
	return q, p, err
}

// writeVerb returns the verb that a write would be over HTTP.
func writeVerb(t resource.Target, w control.Write) string {
	switch sub := t.Kind.Working().Subresources[w.Subresource]; {
	case w.Delete:
		return "delete"
	case sub != nil && sub.Handler != nil, w.Old == nil && w.Subresource == "":
		return "create"
	}
	return "update"
}

// planWrite returns the plan of a request that is part of a commit.
func (r *Registry) planWrite(ctx context.Context, q *request, w control.Write) (*plan, error) {
	switch {
	case w.Object == nil && !w.Delete:
		return nil, apierrors.NewBadRequest("a write needs an object")
	case (q.handler() != nil || q.Kind.Virtual()) && !w.Delete:
		return r.planHandled(ctx, q, w.Object)
	case w.Old == nil && w.Subresource == "" && !w.Delete:
		return r.planCreate(ctx, q, w.Object.DeepCopyObject().(kube.Object))
	}
	cur, err := r.current(ctx, q.Kind, resource.Key(q.Kind, q.Namespace, q.Name))
	if err != nil {
		return nil, err
	}
	if cur == nil {
		return nil, notFound(q.Kind, q.Name)
	}
	if err := q.meant(cur); err != nil {
		return nil, err
	}
	if w.Delete {
		return r.planRemoval(ctx, q, cur)
	}
	if q.sub != nil && q.sub.Put != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s cannot be part of a commit", q.Subresource))
	}
	obj := w.Object.DeepCopyObject().(kube.Object)
	if q.sub == nil && q.Kind.Stored().Partial(obj) {
		obj = completed(cur, obj)
	}
	obj.SetResourceVersion(objects.FormatRevision(cur.entry.Rev))
	if err := q.sameUID(cur, obj.GetUID()); err != nil {
		return nil, err
	}
	return r.planUpdate(ctx, q, cur, obj, nil)
}
