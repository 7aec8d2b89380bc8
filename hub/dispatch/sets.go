package dispatch

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/dispatch/desired"
	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/wire"
)

// compose composes the whole set of a node whose session is about to open. have is the hash of the node's copy.
func (d *Dispatch) compose(now time.Time, n *node, have wire.Hash) {
	n.down, n.renew = wire.NewSharing(d.common), time.Time{}
	if d.tokens != nil {
		for _, o := range n.tokens.Open(d.set.Pods(n.name), have.IsZero()) {
			d.put(n, o)
		}
	}
	d.set.Open(now, n.name, have.IsZero())
	d.spread()
}

// accepted makes the missing tokens when the node's copy was known by its hash, without its map.
func (d *Dispatch) accepted(now time.Time, n *node, have wire.Hash) {
	if have.IsZero() || have == n.down.Hash() {
		d.set.Known(n.name)
		d.renewTokens(now, n)
	}
}

// compare compares the map of what a node has with its set.
func (d *Dispatch) compare(now time.Time, n *node, h *wire.Have) {
	put, remove := n.tokens.Have(h.Entries)
	for _, o := range put {
		d.put(n, o)
	}
	for _, id := range remove {
		d.remove(n, id)
	}
	d.set.Have(now, n.name, h.Entries)
	d.spread()
	d.renewTokens(now, n)
}

// missesToken reports whether a pod of a connected node waits for a token that is still to be made.
func (d *Dispatch) missesToken(name string, p *corev1.Pod) bool {
	n := d.session(name)
	return n != nil && n.tokens.Missing(p)
}

// renewTokens makes the tokens that are missing or due.
func (d *Dispatch) renewTokens(now time.Time, n *node) {
	due, next := n.tokens.Due(now)
	for _, r := range due {
		d.makeToken(n, r)
	}
	n.renew = next
	d.wakeNode(n, next)
}

// makeToken asks for a token, which is made beside the loop.
func (d *Dispatch) makeToken(n *node, r tokens.Request) {
	d.tokens.Ask(r, func(r tokens.Result) {
		d.callOn(n, func(now time.Time) { d.tokenMade(now, n, r) })
	})
}

// tokenMade sends a token that has been made, and the pod that waits for it.
func (d *Dispatch) tokenMade(now time.Time, n *node, r tokens.Result) {
	o, next, ok := n.tokens.Made(now, r)
	if !ok {
		return
	}
	n.renew = earliest(n.renew, next)
	d.wakeNode(n, next)
	if r.Err != nil {
		d.cfg.Log.Warn("token not made, will try again", "pod", r.Pod.Namespace+"/"+r.Pod.Name, "error", r.Err, "retry", tokens.Retry)
	}
	switch {
	case n.current == nil:
		return
	case r.Err != nil:
		d.set.Cancel(now, n.name, r.Pod.UID)
	default:
		d.put(n, o)
		d.set.Release(now, n.name, r.Pod.UID)
	}
	d.spread()
}

// spread passes changes of sets to the senders of the nodes concerned.
func (d *Dispatch) spread() {
	out := d.set.Drain()
	for _, op := range out.Ops {
		switch op.Verb {
		case desired.Share:
			d.common.Put(op.Object)
		case desired.Unshare:
			d.common.Remove(op.ID)
		default:
			if n := d.session(op.Node); n != nil {
				d.setChanged(n, op)
			}
		}
	}
	if r := d.common.Cut(); r != nil {
		d.sharedChanged(r)
	}
	for _, f := range out.Failed {
		d.cfg.Log.Error("object not passed on to nodes", "kind", f.Kind, "name", f.Name, "error", f.Err)
	}
	for _, name := range out.Waiting {
		if n := d.session(name); n != nil {
			d.wakeNode(n, out.Wake)
		}
	}
}

func (d *Dispatch) setChanged(n *node, op desired.Op) {
	switch op.Verb {
	case desired.Put:
		d.podPut = d.podPut || op.ID.Kind == wire.KindPod
		d.put(n, op.Object)
	case desired.Remove:
		d.remove(n, op.ID)
	case desired.Hide:
		n.down.Except(op.ID)
	}
}

func (d *Dispatch) put(n *node, o *wire.Object) {
	n.down.Set(o, false)
	d.touched[n] = struct{}{}
}

func (d *Dispatch) remove(n *node, id wire.ID) {
	n.down.Remove(id)
	d.touched[n] = struct{}{}
}
