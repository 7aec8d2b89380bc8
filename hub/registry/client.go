package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/sqlstore"
)

// client is control.Client in process: the same rules as over HTTP without encoding anything for the way.
type client struct{ r *Registry }

// Client returns what controllers, the scheduler's driver and the dispatcher use. Objects that its methods return are
// shared, as all objects of control.Reader: read-only. Objects given to it are only read.
func (r *Registry) Client() control.Client { return &client{r} }

// Get implements control.Reader.
func (c *client) Get(gvk kube.GVK, namespace, name string) (obj kube.Object, ok bool) {
	k := c.r.kindFor(gvk)
	if k == nil {
		return nil, false
	}
	c.r.cache.read(k, func(kc *kindCache) {
		var it cached
		it, ok = kc.items.Get(resource.Key(k, namespace, name))
		obj = it.obj
	})
	return obj, ok
}

// List implements control.Reader.
func (c *client) List(gvk kube.GVK, namespace string) (objs []kube.Object) {
	k := c.r.kindFor(gvk)
	if k == nil {
		return nil
	}
	prefix := resource.Prefix(k, namespace)
	c.r.cache.read(k, func(kc *kindCache) {
		if namespace == "" {
			objs = make([]kube.Object, 0, kc.items.Len())
		}
		kc.items.Ascend(prefix, func(key string, it cached) bool {
			if !strings.HasPrefix(key, prefix) {
				return false
			}
			objs = append(objs, it.obj)
			return true
		})
	})
	return objs
}

// Index implements control.Reader. An index that the kind does not declare finds nothing.
func (c *client) Index(gvk kube.GVK, name, value string) (objs []kube.Object) {
	k := c.r.kindFor(gvk)
	if k == nil {
		return nil
	}
	c.r.cache.read(k, func(kc *kindCache) {
		ix := kc.indexes[name]
		if ix == nil {
			return
		}
		for _, e := range ix.under[value] {
			objs = append(objs, e.obj)
		}
	})
	return objs
}

// target says what obj is.
func (c *client) target(obj kube.Object) (Target, error) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	if gvk.Kind == "" {
		gvks, _, err := resource.Scheme().ObjectKinds(obj)
		if err != nil || len(gvks) == 0 {
			return Target{}, apierrors.NewBadRequest(fmt.Sprintf("%T: its kind is not served", obj))
		}
		gvk = gvks[0]
	}
	k := c.r.kindFor(gvk)
	if k == nil {
		return Target{}, apierrors.NewBadRequest(fmt.Sprintf("%s is not served", gvk))
	}
	return Target{Kind: k, Namespace: obj.GetNamespace(), Name: obj.GetName()}, nil
}

// Create implements control.Writer.
func (c *client) Create(ctx context.Context, obj kube.Object) (kube.Object, error) {
	t, err := c.target(obj)
	if err != nil {
		return nil, err
	}
	t.Name = ""
	return asObject(c.r.Create(ctx, t, obj.DeepCopyObject(), nil))
}

// Update implements control.Writer.
func (c *client) Update(ctx context.Context, obj kube.Object, sub string) (kube.Object, error) {
	t, err := c.target(obj)
	if err != nil {
		return nil, err
	}
	t.Subresource = sub
	return asObject(c.r.Update(ctx, t, obj.DeepCopyObject(), nil))
}

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
	_, err := c.r.Delete(ctx, Target{Kind: k, Namespace: namespace, Name: name}, &opts)
	return err
}

// Commit implements control.Writer. A write that would change nothing is left out. No object may occur twice. The
// "binding" subresource takes a pod with spec.nodeName, and needs no Old: a pod that has no node yet takes it.
func (c *client) Commit(ctx context.Context, writes []control.Write) error {
	plans := make([]*plan, 0, len(writes))
	targets := make([]Target, 0, len(writes))
	for _, w := range writes {
		t, p, err := c.plan(ctx, w)
		if err != nil {
			return err
		}
		if p == nil || p.noop() {
			continue
		}
		plans, targets = append(plans, p), append(targets, t)
	}
	if len(plans) == 0 {
		return nil
	}
	_, err := c.r.commit(ctx, plans...)
	var lost *sqlstore.ConflictError
	if !errors.As(err, &lost) {
		if err != nil {
			return storeFailure(targets[0].Kind, "update", err)
		}
		return nil
	}
	for i, p := range plans {
		if p.key != lost.Key {
			continue
		}
		switch t := targets[i]; {
		case p.old == nil:
			return apierrors.NewAlreadyExists(groupResource(t.Kind), t.Name)
		case lost.Have == 0:
			return notFound(t.Kind, t.Name)
		default:
			return modified(t.Kind, t.Name)
		}
	}
	return apierrors.NewInternalError(err)
}

// plan decides one write of a Commit.
func (c *client) plan(ctx context.Context, w control.Write) (Target, *plan, error) {
	subject := w.Object
	if subject == nil {
		subject = w.Old
	}
	if subject == nil {
		return Target{}, nil, apierrors.NewBadRequest("a write needs an object")
	}
	t, err := c.target(subject)
	if err != nil {
		return t, nil, err
	}
	t.Subresource = w.Subresource
	if w.Old == nil && !w.Delete && w.Subresource == "" {
		t.Name = ""
		p, err := c.r.planCreate(ctx, t, w.Object.DeepCopyObject().(kube.Object), false)
		if err == nil {
			t.Name = p.obj.GetName()
		}
		return t, p, err
	}
	cur, err := c.r.current(ctx, t.Kind, resource.Key(t.Kind, t.Namespace, t.Name))
	if err != nil {
		return t, nil, err
	}
	if cur == nil {
		return t, nil, notFound(t.Kind, t.Name)
	}
	if w.Old != nil && w.Old.GetResourceVersion() != formatRevision(cur.entry.Rev) {
		return t, nil, modified(t.Kind, t.Name)
	}
	switch {
	case w.Delete:
		p, err := c.r.planRemoval(ctx, t, cur)
		return t, p, err
	case w.Subresource == "binding":
		p, err := c.r.planBindingOf(ctx, t, cur, w.Object)
		return t, p, err
	}
	sub, err := subresource(t, "update")
	if err != nil {
		return t, nil, err
	}
	if sub != nil && sub.Put != nil {
		return t, nil, apierrors.NewBadRequest(fmt.Sprintf("%s cannot be part of a commit", w.Subresource))
	}
	obj := w.Object.DeepCopyObject().(kube.Object)
	obj.SetResourceVersion(formatRevision(cur.entry.Rev))
	if uid := obj.GetUID(); uid != "" && uid != cur.obj.GetUID() {
		return t, nil, uidMismatch(t.Kind, t.Name, uid, cur.obj.GetUID())
	}
	p, err := c.r.planUpdate(ctx, update{t: t, sub: sub, cur: cur, obj: obj})
	return t, p, err
}

// planRemoval removes an object for good: its grace and its finalizers have been seen to.
func (r *Registry) planRemoval(ctx context.Context, t Target, cur *current) (*plan, error) {
	attrs := Attributes{Target: t, Operation: OpDelete, Old: cur.obj}
	if err := r.admission.Mutate(ctx, attrs); err != nil {
		return nil, err
	}
	if err := r.admission.Validate(ctx, attrs); err != nil {
		return nil, err
	}
	p := &plan{kind: storedKind(t.Kind), key: cur.entry.Key, old: cur, remove: true, obj: cur.obj.DeepCopyObject().(kube.Object)}
	return p, p.encode()
}

// planBindingOf binds the current pod to obj's node.
func (r *Registry) planBindingOf(ctx context.Context, t Target, cur *current, obj kube.Object) (*plan, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%T cannot be bound to a node", obj))
	}
	b := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: pod.Spec.NodeName}}
	b.Name, b.Namespace, b.UID = pod.Name, pod.Namespace, pod.UID
	if errs := validateBinding(b); len(errs) > 0 {
		return nil, plainError(errs.ToAggregate().Error())
	}
	return r.planBinding(ctx, t, cur, b, false)
}
