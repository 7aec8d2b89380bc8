package desired

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// Reader finds the objects that pods refer to: control.Reader is one. It answers from memory, and is no older than the last
// Change.
type Reader interface {
	Get(gvk kube.GVK, namespace, name string) (kube.Object, bool)
}

// Config is what Sets need.
type Config struct {
	// Sources is the table of what is synced; one of them is of Pods.
	Sources []Source
	Reader  Reader
	// Waits reports whether something that a pod mounts is still being made beside the loop, so that its node would only
	// fail to start it. Nil: no pod waits.
	Waits func(node string, p *corev1.Pod) bool
}

// Sets are the desired sets of all nodes that have a session. They follow the change feed for all nodes. They are owned by
// one goroutine.
type Sets struct {
	cfg      Config
	kinds    []kube.GVK // to follow, each once
	bound    []*bound
	shared   []*shared
	referred []*referred
	pods     *bound          // the one of Pods
	open     map[string]*set // by Node name: nodes with a session
	out      Output          // what Drain returns next
}

// set is one open set.
type set struct {
	node    string
	members map[wire.ID]member      // of bound sources
	pending map[types.UID]time.Time // pods that are not sent yet: until when they may wait
	known   bool                    // it is known which pods the node has, so that others may be pending
}

// member is a bound object of an open set.
type member struct {
	sent bool // has been put into the set; otherwise it is pending
	refs []ref
}
