package admission

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

var kinds = builtin.New()

// store is what tests put into it, indexed as the kinds declare.
type store struct {
	mu     sync.Mutex
	objs   map[string]kube.Object
	subs   []func(control.Change)
	behind chan struct{} // closed when reads show all that was committed
}

func newStore(objs ...kube.Object) *store {
	s := &store{objs: map[string]kube.Object{}, behind: make(chan struct{})}
	close(s.behind)
	for _, o := range objs {
		s.put(o)
	}
	return s
}

func key(gvk kube.GVK, namespace, name string) string {
	k, _ := kinds.Lookup(gvk)
	return resource.Key(k, namespace, name)
}

func (s *store) put(o kube.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gvk := gvkOf(o)
	s.objs[key(gvk, o.GetNamespace(), o.GetName())] = o
	for _, f := range s.subs {
		f(control.Change{GVK: gvk, New: o})
	}
}

// Subscribe follows all kinds.
func (s *store) Subscribe(_ context.Context, f func(control.Change), _ ...kube.GVK) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.objs {
		f(control.Change{GVK: gvkOf(o), New: o})
	}
	s.subs = append(s.subs, f)
}

func (s *store) Delivered(ctx context.Context) error { return s.CatchUp(ctx) }

func (s *store) CatchUp(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.behind:
		return nil
	}
}

func (s *store) remove(o kube.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objs, key(gvkOf(o), o.GetNamespace(), o.GetName()))
}

func gvkOf(o kube.Object) kube.GVK {
	gvks, _, err := resource.Scheme().ObjectKinds(o)
	if err != nil {
		panic(err)
	}
	return gvks[0]
}

func (s *store) Get(gvk kube.GVK, namespace, name string) (kube.Object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objs[key(gvk, namespace, name)]
	return o, ok
}

func (s *store) List(gvk kube.GVK, namespace string) (out []kube.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(s.objs)) {
		if o := s.objs[k]; gvkOf(o) == gvk && (namespace == "" || o.GetNamespace() == namespace) {
			out = append(out, o)
		}
	}
	return out
}

func (s *store) Index(gvk kube.GVK, index, value string) (out []kube.Object) {
	k, _ := kinds.Lookup(gvk)
	for _, o := range s.List(gvk, "") {
		if slices.Contains(k.Indexes[index](o), value) {
			out = append(out, o)
		}
	}
	return out
}

func namespace(name string, phase corev1.NamespacePhase) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NamespaceStatus{Phase: phase}}
}

func account(ns, name string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
}

func newChain(t *testing.T, s *store) *Chain {
	t.Helper()
	c, err := New(Config{Objects: s, Ledger: quota.NewLedger(s, kinds.OfResource)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// request is a write: a creation, an update or a deletion by which objects there are.
func request(obj, old kube.Object) *registry.AdmissionRequest {
	some, op := obj, registry.OpUpdate
	switch {
	case old == nil:
		op = registry.OpCreate
	case obj == nil:
		some, op = old, registry.OpDelete
	}
	k, _ := kinds.Lookup(gvkOf(some))
	return &registry.AdmissionRequest{
		Request:   resource.Request{Target: resource.Target{Kind: k, Namespace: some.GetNamespace(), Name: some.GetName()}},
		Operation: op, Object: obj, Old: old,
	}
}

// admit runs the whole chain on a write.
func admit(ctx context.Context, c *Chain, obj, old kube.Object) error {
	a := request(obj, old)
	if err := c.Mutate(ctx, a); err != nil {
		return err
	}
	return c.Validate(ctx, a)
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("error = %v\n        want %s", err, want)
	}
}
