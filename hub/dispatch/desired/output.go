package desired

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// Output is what the caller has to do, in order of the fields.
type Output struct {
	Ops []Op
	// Failed are objects that could not be composed; nodes keep what they have of them.
	Failed []Failure
	// Wake is when to call Expire, for the nodes in Waiting; zero: nothing new is pending.
	Wake    time.Time
	Waiting []string
}

// Verb is what an Op does.
type Verb string

const (
	Put     Verb = "put"     // into one node's set, in place of what has the ID
	Remove  Verb = "remove"  // from one node's set
	Hide    Verb = "hide"    // keep what is or will be shared under this ID from one node
	Share   Verb = "share"   // put into what all nodes get
	Unshare Verb = "unshare" // remove from what all nodes get
)

// Op is one change of a set.
type Op struct {
	Verb   Verb
	Node   string // name, of Put, Remove and Hide
	ID     wire.ID
	Object *wire.Object // of Put and Share; shared: read-only
}

// Failure is an object that could not be composed.
type Failure struct {
	Kind wire.Kind
	Name string // with its namespace
	Err  error
}

// Drain returns what there is to do since the last call.
func (s *Sets) Drain() Output {
	out := s.out
	s.out = Output{}
	return out
}

// compose composes an object. ok is false when that failed: nodes keep what they have.
func (s *Sets) compose(src *Source, o kube.Object, parts []kube.Object) (w *wire.Object, ok bool) {
	w, err := src.Compose(o, parts)
	if err != nil {
		s.out.Failed = append(s.out.Failed, Failure{Kind: src.Kind, Name: text(nameOf(o)), Err: err})
		return nil, false
	}
	return w, true
}

func nameOf(o kube.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// text returns a name in the form for logs.
func text(n types.NamespacedName) string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.String()
}

func (s *Sets) put(n *set, o *wire.Object) {
	s.out.Ops = append(s.out.Ops, Op{Verb: Put, Node: n.node, ID: o.ID, Object: o})
}

func (s *Sets) remove(n *set, id wire.ID) {
	s.out.Ops = append(s.out.Ops, Op{Verb: Remove, Node: n.node, ID: id})
}
