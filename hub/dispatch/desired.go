package dispatch

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

var feedKinds = []kube.GVK{kube.Node, kube.Pod, kube.Service, kube.EndpointSlice, kube.ConfigMap, kube.Secret}

// desired composes what nodes should have. It follows the change feed for all nodes, but holds a set only for those with
// a session: a dark node's is composed when it comes back.
type desired struct {
	d *Dispatch

	nodes     map[string]*corev1.Node
	nodeByKey map[string]string                    // fingerprint → Node name
	peers     map[string]wire.ID                   // by Node name
	pods      map[string]map[types.UID]*corev1.Pod // by Node name
	services  map[string]*corev1.Service           // by namespace/name, as the next three
	slices    map[string]map[string]*discoveryv1.EndpointSlice
	joined    map[string]wire.ID
	common    *wire.Shared        // joined Services and peers: every node gets them
	stale     map[string]struct{} // joined that must be made anew

	refs    map[ref]*referred
	touched map[*node]struct{} // sessions that have something new to send
}

// referred is a ConfigMap or Secret that pods of connected nodes refer to.
type referred struct {
	obj   *wire.Object // nil: does not exist
	nodes map[*node]int
}

// nodeSet is what the composition remembers of one connected node.
type nodeSet struct {
	pods map[types.UID][]ref
	held map[types.UID]time.Time // pods that wait for a token, and until when
	// known: it is known which pods the node has, so that others may be held back.
	known bool
}

func newDesired(d *Dispatch) *desired {
	return &desired{
		d: d, nodes: map[string]*corev1.Node{}, nodeByKey: map[string]string{}, peers: map[string]wire.ID{}, common: wire.NewShared(),
		pods: map[string]map[types.UID]*corev1.Pod{}, services: map[string]*corev1.Service{},
		slices: map[string]map[string]*discoveryv1.EndpointSlice{}, joined: map[string]wire.ID{},
		stale: map[string]struct{}{}, refs: map[ref]*referred{}, touched: map[*node]struct{}{},
	}
}

func (s *desired) change(c control.Change) {
	switch c.GVK {
	case kube.Pod:
		s.pod(as[*corev1.Pod](c.Old), as[*corev1.Pod](c.New))
	case kube.Node:
		s.node(as[*corev1.Node](c.Old), as[*corev1.Node](c.New))
	case kube.Service:
		o := either(c)
		key := o.GetNamespace() + "/" + o.GetName()
		if c.New == nil {
			delete(s.services, key)
		} else {
			s.services[key] = c.New.(*corev1.Service)
		}
		s.stale[key] = struct{}{}
	case kube.EndpointSlice:
		s.slice(as[*discoveryv1.EndpointSlice](c.Old), as[*discoveryv1.EndpointSlice](c.New))
	case kube.ConfigMap, kube.Secret:
		o := either(c)
		r := ref{c.GVK, o.GetNamespace(), o.GetName()}
		if x := s.refs[r]; x != nil {
			s.setRef(x, s.refObject(r, c.New))
		}
	}
}

func either(c control.Change) kube.Object {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

func as[T kube.Object](o kube.Object) T {
	t, _ := o.(T)
	return t
}

// session is the node that has a session under a Node's name, or nil.
func (s *desired) session(name string) *node {
	if n := s.d.byName[name]; n != nil && n.current != nil {
		return n
	}
	return nil
}

func (s *desired) set(n *node, o *wire.Object) {
	n.down.Set(o, false)
	s.touched[n] = struct{}{}
}

func (s *desired) remove(n *node, id wire.ID) {
	n.down.Remove(id)
	s.touched[n] = struct{}{}
}

// made logs an object that could not be made; it is then left as it was.
func (s *desired) made(o *wire.Object, err error, what, name string) *wire.Object {
	if err != nil {
		s.d.cfg.Log.Error("object not passed on to nodes", "kind", what, "name", name, "error", err)
		return nil
	}
	return o
}

func (s *desired) pod(old, new *corev1.Pod) {
	defer s.d.imagesInUse(time.Now(), old, new)
	if old != nil && old.Spec.NodeName != "" && (new == nil || new.Spec.NodeName != old.Spec.NodeName || new.UID != old.UID) {
		name := old.Spec.NodeName
		delete(s.pods[name], old.UID)
		if len(s.pods[name]) == 0 {
			delete(s.pods, name)
		}
		if n := s.session(name); n != nil {
			s.removePod(n, old.UID)
		}
	}
	if new == nil || new.Spec.NodeName == "" {
		return
	}
	name := new.Spec.NodeName
	if s.pods[name] == nil {
		s.pods[name] = map[types.UID]*corev1.Pod{}
	}
	s.pods[name][new.UID] = new
	if n := s.session(name); n != nil {
		s.setPod(n, new)
	}
}

func (s *desired) setPod(n *node, p *corev1.Pod) {
	o, err := podObject(p)
	if o = s.made(o, err, "Pod", p.Namespace+"/"+p.Name); o == nil {
		return
	}
	before, after := n.desired.pods[p.UID], podRefs(p)
	n.desired.pods[p.UID] = after
	for _, r := range after {
		if !slices.Contains(before, r) {
			s.hold(n, r)
		}
	}
	for _, r := range before {
		if !slices.Contains(after, r) {
			s.release(n, r)
		}
	}
	s.wantTokens(n, p)
	if _, sent := n.down.Get(o.ID); sent || !s.waits(n, p) {
		s.set(n, o)
	}
}

func (s *desired) removePod(n *node, uid types.UID) {
	s.remove(n, wire.ID{Kind: wire.KindPod, UID: string(uid)})
	for _, r := range n.desired.pods[uid] {
		s.release(n, r)
	}
	delete(n.desired.pods, uid)
	delete(n.desired.held, uid)
	s.dropTokens(n, uid)
}

// hold has a node get what a pod refers to.
func (s *desired) hold(n *node, r ref) {
	x := s.refs[r]
	if x == nil {
		o, _ := s.d.cfg.Client.Get(r.gvk, r.ns, r.name)
		x = &referred{obj: s.refObject(r, o), nodes: map[*node]int{}}
		s.refs[r] = x
	}
	x.nodes[n]++
	if x.nodes[n] == 1 && x.obj != nil {
		s.set(n, x.obj)
	}
}

func (s *desired) release(n *node, r ref) {
	x := s.refs[r]
	if x == nil {
		return
	}
	if x.nodes[n]--; x.nodes[n] > 0 {
		return
	}
	delete(x.nodes, n)
	if x.obj != nil {
		s.remove(n, x.obj.ID)
	}
	if len(x.nodes) == 0 {
		delete(s.refs, r)
	}
}

func (s *desired) refObject(r ref, o kube.Object) *wire.Object {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		w, err := configMapObject(o)
		return s.made(w, err, "ConfigMap", r.ns+"/"+r.name)
	case *corev1.Secret:
		w, err := secretObject(o)
		return s.made(w, err, "Secret", r.ns+"/"+r.name)
	}
	return nil
}

func (s *desired) setRef(x *referred, o *wire.Object) {
	old := x.obj
	x.obj = o
	for n := range x.nodes {
		if old != nil && (o == nil || o.ID != old.ID) {
			s.remove(n, old.ID)
		}
		if o != nil {
			s.set(n, o)
		}
	}
}

func (s *desired) slice(old, new *discoveryv1.EndpointSlice) {
	key := func(e *discoveryv1.EndpointSlice) string {
		if e == nil || e.Labels[discoveryv1.LabelServiceName] == "" {
			return ""
		}
		return e.Namespace + "/" + e.Labels[discoveryv1.LabelServiceName]
	}
	if k := key(old); k != "" {
		delete(s.slices[k], old.Name)
		if len(s.slices[k]) == 0 {
			delete(s.slices, k)
		}
		s.stale[k] = struct{}{}
	}
	if k := key(new); k != "" {
		if s.slices[k] == nil {
			s.slices[k] = map[string]*discoveryv1.EndpointSlice{}
		}
		s.slices[k][new.Name] = new
		s.stale[k] = struct{}{}
	}
}

// flush makes the joined Services that changed, once for all nodes.
func (s *desired) flush() {
	for key := range s.stale {
		delete(s.stale, key)
		contain.Go(s.d.cfg.Log, "dispatch/service", key, func() { s.join(key) })
	}
}

// join makes one Service with its endpoints anew.
func (s *desired) join(key string) {
	var o *wire.Object
	if svc := s.services[key]; svc != nil {
		j, err := serviceObject(svc, s.slices[key])
		if o = s.made(j, err, "Service", key); o == nil {
			return
		}
	}
	s.share(s.joined, key, o)
}

// share has all nodes get o, or nothing (nil), in place of what they got under that key.
func (s *desired) share(ids map[string]wire.ID, key string, o *wire.Object) {
	if id, ok := ids[key]; ok && (o == nil || o.ID != id) {
		delete(ids, key)
		s.shared(id, s.common.Remove(id), nil)
	}
	if o == nil {
		return
	}
	ids[key] = o.ID
	s.shared(o.ID, s.common.Put(o), o)
}

// shared tells all sessions of a change of what is common.
func (s *desired) shared(id wire.ID, before, now *wire.Object) {
	if before != nil && now != nil && before.Version == now.Version {
		return
	}
	for _, n := range s.d.byName {
		if n.current != nil {
			n.down.SharedChanged(id, before, now)
			s.touched[n] = struct{}{}
		}
	}
}

func (s *desired) node(old, new *corev1.Node) {
	now := time.Now()
	if old != nil && (new == nil || new.UID != old.UID || new.Annotations[kube.NodeKeyAnnotation] != old.Annotations[kube.NodeKeyAnnotation]) {
		key := old.Annotations[kube.NodeKeyAnnotation]
		if s.nodeByKey[key] == old.Name {
			delete(s.nodeByKey, key)
			s.d.known.remove(wire.NodeID(key))
		}
		if n := s.d.byName[old.Name]; n != nil && wire.NodeID(key) == n.id {
			why := "the Node " + old.Name + " was deleted from the hub; join again with a new token to come back"
			if new != nil {
				why = "another device has joined as " + old.Name + " and taken its place"
			}
			s.d.removed(now, n, why)
		}
	}
	name := ""
	if new == nil {
		name = old.Name
		delete(s.nodes, name)
	} else {
		name = new.Name
		s.nodes[name] = new
		if key := new.Annotations[kube.NodeKeyAnnotation]; key != "" {
			if _, ok := s.nodeByKey[key]; !ok {
				s.d.known.add(wire.NodeID(key))
			}
			s.nodeByKey[key] = name
		}
		if n := s.session(name); n != nil {
			s.ownNode(n, new)
		}
	}
	s.peer(name, new)
}

// ownNode has a node know of itself, and not as one of its peers.
func (s *desired) ownNode(n *node, node *corev1.Node) {
	n.down.Except(wire.ID{Kind: wire.KindPeer, UID: string(node.UID)})
	o, err := nodeObject(node)
	if o = s.made(o, err, "Node", node.Name); o != nil {
		s.set(n, o)
	}
}

func (s *desired) peer(name string, node *corev1.Node) {
	var o *wire.Object
	if node != nil {
		p, err := peerObject(node)
		o = s.made(p, err, "Peer", name)
	}
	s.share(s.peers, name, o)
}

// compose makes the whole set of a node whose session is about to open.
func (s *desired) compose(now time.Time, n *node, have wire.Hash) {
	n.down = wire.NewSharing(s.common)
	n.desired = nodeSet{pods: map[types.UID][]ref{}, held: map[types.UID]time.Time{}, known: have.IsZero()}
	s.keepTokens(n, have)
	if node := s.nodes[n.name]; node != nil {
		s.ownNode(n, node)
	}
	for _, p := range s.pods[n.name] {
		s.setPod(n, p)
	}
	s.placeTokens(n)
}

// drop forgets a node's set.
func (s *desired) drop(n *node) {
	for _, refs := range n.desired.pods {
		for _, r := range refs {
			if x := s.refs[r]; x != nil {
				delete(x.nodes, n)
				if len(x.nodes) == 0 {
					delete(s.refs, r)
				}
			}
		}
	}
	n.desired, n.down = nodeSet{}, nil
	delete(s.touched, n)
}
