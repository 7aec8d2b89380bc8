// Package controltest has an in-memory control.Client that behaves like the API as far as loops rely on it:
// resourceVersion and conflicts, uid, generation, generateName, status apart from spec, deletion with grace periods,
// finalizers and propagation, namespaces that end through their finalizers, bindings, and all-or-nothing commits.
// It does no defaulting, validation or admission: tests write objects as they would be stored.
//
// The cache that readers see can be held back (Lag), because a loop must be right on an old one too.
package controltest

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Client is an in-memory control.Client. New makes one.
type Client struct {
	// Now is the clock of creation and deletion timestamps (default time.Now, which a synctest bubble turns).
	Now func() time.Time
	// Refuse, when not nil, is called before each write; its error is the result of the write. verb is create, update or delete.
	Refuse func(verb string, obj kube.Object, subresource string) error

	mu      sync.Mutex                          // guards all that follows
	rev     uint64                              // of the last commit; grows only
	uids    uint64                              // grows only
	truth   map[kube.GVK]map[string]kube.Object // what is stored, by kind and key
	cache   map[kube.GVK]map[string]kube.Object // what readers see: truth without the changes in behind
	indexes map[kube.GVK]map[string]func(kube.Object) []string
	lag     bool             // the cache is held back
	behind  []control.Change // committed, not yet in the cache
	moved   chan struct{}    // closed and replaced when behind gets shorter
	subs    []*subscription
	writes  []string
}

var _ control.Client = (*Client)(nil)

// New returns an empty client that holds copies of objs as they are (uid, creationTimestamp and status included, where
// set).
func New(t testing.TB, objs ...kube.Object) *Client {
	t.Helper()
	c := &Client{
		Now:     time.Now,
		truth:   map[kube.GVK]map[string]kube.Object{},
		cache:   map[kube.GVK]map[string]kube.Object{},
		indexes: map[kube.GVK]map[string]func(kube.Object) []string{},
		moved:   make(chan struct{}),
	}
	c.AddIndex(kube.Pod, control.NodeIndex, podNode)
	c.AddIndex(kube.Pod, kube.ClaimIndex, kube.ClaimKeys)
	c.AddIndex(kube.PersistentVolume, kube.ClaimIndex, kube.ClaimKeys)
	for _, o := range objs {
		c.Put(o)
	}
	return c
}

// AddIndex declares an index, as a kind's declaration in hub/resource does. "owner" exists for every kind, "node" and "claim" for
// Pods, "claim" for PersistentVolumes.
func (c *Client) AddIndex(gvk kube.GVK, name string, f func(kube.Object) []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.indexes[gvk] == nil {
		c.indexes[gvk] = map[string]func(kube.Object) []string{}
	}
	c.indexes[gvk][name] = f
}

// Revision returns that of the last commit.
func (c *Client) Revision() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rev
}

// Put stores a copy of obj as it is, new or in place of what is there, status and all; only what is empty of uid,
// creationTimestamp and generation is filled in. Tests use it in place of an agent or a user.
func (c *Client) Put(obj kube.Object) kube.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := obj.DeepCopyObject().(kube.Object)
	gvk := setGVK(o)
	old := c.truth[gvk][key(o)]
	if old != nil && o.GetUID() == "" {
		o.SetUID(old.GetUID())
	}
	c.fillNew(o)
	c.commit([]control.Change{{GVK: gvk, Old: old, New: o}})
	return o
}

// Remove deletes the object at once, whatever its finalizers.
func (c *Client) Remove(gvk kube.GVK, namespace, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.truth[gvk][namespace+"/"+name]; old != nil {
		c.commit([]control.Change{{GVK: gvk, Old: old}})
	}
}

// Lag holds back the cache and the feed (true), or lets them catch up and keeps them current (false).
func (c *Client) Lag(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lag = on
	if !on {
		c.catchUp(len(c.behind))
	}
}

// Step lets a lagging cache see the next n commits' changes; it returns how many remain.
func (c *Client) Step(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.catchUp(min(n, len(c.behind)))
	return len(c.behind)
}

// Stored returns what is stored, however far the cache is behind.
func (c *Client) Stored(gvk kube.GVK, namespace string) []kube.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return list(c.truth[gvk], namespace)
}

// Writes returns one line for each successful write through the Writer ("create Pod default/a", "update Pod default/a
// status") since the last call.
func (c *Client) Writes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.writes
	c.writes = nil
	return w
}

// Get reads from the cache.
func (c *Client) Get(gvk kube.GVK, namespace, name string) (kube.Object, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.cache[gvk][namespace+"/"+name]
	return o, ok
}

// Whole reads from the cache, which has all of every object.
func (c *Client) Whole(_ context.Context, gvk kube.GVK, namespace, name string) (kube.Object, bool, error) {
	o, ok := c.Get(gvk, namespace, name)
	return o, ok, nil
}

// List reads from the cache.
func (c *Client) List(gvk kube.GVK, namespace string) []kube.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	return list(c.cache[gvk], namespace)
}

// Index reads from the cache. It panics on an index that is not declared: otherwise a misspelt name would give an empty
// result.
func (c *Client) Index(gvk kube.GVK, index, value string) []kube.Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.indexes[gvk][index]
	if index == control.OwnerIndex {
		f = owners
	}
	if f == nil {
		panic(fmt.Sprintf("controltest: %s has no index %q", gvk.Kind, index))
	}
	var out []kube.Object
	for _, o := range list(c.cache[gvk], "") {
		if slices.Contains(f(o), value) {
			out = append(out, o)
		}
	}
	return out
}

// CatchUp waits for a cache that is held back.
func (c *Client) CatchUp(ctx context.Context) error {
	c.mu.Lock()
	until := c.rev
	for {
		if c.rev-uint64(len(c.behind)) >= until { // each change is one revision
			c.mu.Unlock()
			return nil
		}
		moved := c.moved
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
		c.mu.Lock()
	}
}

// Delivered waits for the cache. Subscribers have all of it once a bubble of synctest has come to rest.
func (c *Client) Delivered(ctx context.Context) error { return c.CatchUp(ctx) }

// Subscribe follows the cache.
func (c *Client) Subscribe(ctx context.Context, f func(control.Change), kinds ...kube.GVK) {
	s := &subscription{kinds: kinds, signal: make(chan struct{}, 1)}
	c.mu.Lock()
	for _, gvk := range kinds {
		for _, o := range list(c.cache[gvk], "") {
			s.pending = append(s.pending, control.Change{GVK: gvk, New: o})
		}
	}
	initial := s.pending
	s.pending = nil
	c.subs = append(c.subs, s)
	c.mu.Unlock()
	for _, ch := range initial {
		f(ch)
	}
	go s.run(ctx, f, &c.mu)
}

// subscription delivers changes from one goroutine, so that f may call back into the client.
type subscription struct {
	kinds   []kube.GVK
	pending []control.Change // guarded by the client's lock
	signal  chan struct{}
}

func (s *subscription) add(ch control.Change) {
	if !slices.Contains(s.kinds, ch.GVK) {
		return
	}
	s.pending = append(s.pending, ch)
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

func (s *subscription) run(ctx context.Context, f func(control.Change), mu *sync.Mutex) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.signal:
		}
		mu.Lock()
		batch := s.pending
		s.pending = nil
		mu.Unlock()
		for _, ch := range batch {
			f(ch)
		}
	}
}

// commit stores the changes, with one revision each. c.mu is held.
func (c *Client) commit(changes []control.Change) {
	for _, ch := range changes {
		c.rev++
		k := key(ch.Object())
		if ch.New == nil {
			delete(c.truth[ch.GVK], k)
		} else {
			ch.New.SetResourceVersion(strconv.FormatUint(c.rev, 10))
			if c.truth[ch.GVK] == nil {
				c.truth[ch.GVK] = map[string]kube.Object{}
			}
			c.truth[ch.GVK][k] = ch.New
		}
	}
	c.behind = append(c.behind, changes...)
	if !c.lag {
		c.catchUp(len(c.behind))
	}
}

// catchUp applies the next n changes to the cache. c.mu is held.
func (c *Client) catchUp(n int) {
	for _, ch := range c.behind[:n] {
		k := key(ch.Object())
		if ch.New == nil {
			delete(c.cache[ch.GVK], k)
		} else {
			if c.cache[ch.GVK] == nil {
				c.cache[ch.GVK] = map[string]kube.Object{}
			}
			c.cache[ch.GVK][k] = ch.New
		}
		for _, s := range c.subs {
			s.add(ch)
		}
	}
	c.behind = c.behind[n:]
	close(c.moved)
	c.moved = make(chan struct{})
}

func list(m map[string]kube.Object, namespace string) []kube.Object {
	keys := make([]string, 0, len(m))
	for k := range m {
		if namespace == "" || strings.HasPrefix(k, namespace+"/") {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	out := make([]kube.Object, len(keys))
	for i, k := range keys {
		out[i] = m[k]
	}
	return out
}

func key(o kube.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func owners(o kube.Object) []string {
	var out []string
	for _, ref := range o.GetOwnerReferences() {
		out = append(out, string(ref.UID))
	}
	return out
}

func (c *Client) fillNew(o kube.Object) {
	if o.GetUID() == "" {
		c.uids++
		o.SetUID(uid(c.uids))
	}
	if t := o.GetCreationTimestamp(); t.IsZero() {
		o.SetCreationTimestamp(metav1.NewTime(c.Now().Truncate(time.Second)))
	}
	if o.GetGeneration() == 0 {
		o.SetGeneration(1)
	}
}
