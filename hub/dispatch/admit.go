package dispatch

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/dispatch/roster"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// admit decides about a hello: whether the device may have a session, and as which Node.
//
//	same device, another process is alive       → refused, cloned
//	known key                                   → welcome
//	unknown key, no good join token             → refused; nothing is asked, written or spent
//	unknown key, token, name of another device  → refused, name taken, unless the token is made to replace that Node
//	…and that device is alive                   → refused, name taken
//	unknown key, token                          → join: the Node is made, or gets this key
//
// Whether a device is alive is found out by a probe.
func (d *Dispatch) admit(now time.Time, n *node, c *conn) {
	h := c.hello
	if cur := n.current; cur != nil && cur.hello.Instance != h.Instance {
		d.probe(now, n, cur, func(now time.Time, alive bool) {
			if alive {
				d.cloned(now, n, cur, c)
				return
			}
			d.admitKey(now, n, c)
		})
		return
	}
	d.admitKey(now, n, c)
}

// probe asks a session's node whether it is alive, and calls f with the result.
func (d *Dispatch) probe(now time.Time, n *node, c *conn, f func(now time.Time, alive bool)) {
	c.alive = append(c.alive, f)
	c.s.Probe(now)
	d.enqueue(n, c)
}

// cloned refuses a second process that has the key of a device which is connected.
func (d *Dispatch) cloned(now time.Time, n *node, cur, c *conn) {
	msg := fmt.Sprintf("two agents use the device key of node %s at the same time (process %s is connected, %s was refused): "+
		"a cloned card or image; on the copy remove the agent's data directory and join it again with a new token",
		n.name, hex.EncodeToString(cur.hello.Instance[:]), hex.EncodeToString(c.hello.Instance[:]))
	d.in.events.add(now, n.name, "ClonedDevice", msg)
	d.refuse(now, n, c, wire.CodeCloned, msg)
}

// refuse ends a handshake with the reason.
func (d *Dispatch) refuse(now time.Time, n *node, c *conn, code wire.Code, msg string) {
	if ok, before := d.refusals.allow(now); ok {
		d.cfg.Log.Info("device refused", "device", n.id, "wants", shortName(c.hello.Node), "code", code, "reason", msg, "notLoggedBefore", before)
	}
	history, revision := d.history()
	c.s.Refuse(now, wire.Refuse{Code: code, Message: msg, Epoch: n.epoch, Revision: revision, History: history})
	d.enqueue(n, c)
}

// admitKey goes on once no other process of the device is alive.
func (d *Dispatch) admitKey(now time.Time, n *node, c *conn) {
	if n.conns[c.tag] != c {
		return // it ended while the other process was probed
	}
	h := c.hello
	if h.Epoch <= n.epoch {
		d.refuse(now, n, c, wire.CodeEpoch, fmt.Sprintf("epoch %d is not larger than %d, which this device has used already", h.Epoch, n.epoch))
		return
	}
	if name, ok := d.known.Name(c.s.Fingerprint); ok {
		d.open(now, n, c, name)
		return
	}
	if h.Secret == "" {
		d.refuse(now, n, c, wire.CodeUnknownDevice, "the hub knows no Node with this device's key: the Node was deleted, or the device never joined; join it again with a new token (petrel token create)")
		return
	}
	d.joins.check(n.id, h, func(record jointoken.Record, err error) {
		d.callOn(n, func(now time.Time) {
			switch {
			case n.conns[c.tag] != c:
			case err != nil:
				d.refuseJoin(now, n, c, err)
			default:
				d.admitToken(now, n, c, record)
			}
		})
	})
}

// admitToken goes on once the device's token is verified. It joins the device unless the name belongs to another one.
func (d *Dispatch) admitToken(now time.Time, n *node, c *conn, record jointoken.Record) {
	h := c.hello
	other := d.owner(h.Node)
	if other == "" || other == c.s.Fingerprint {
		d.join(n, c)
		return
	}
	device := wire.NodeID(other)
	if record.Replace != h.Node {
		d.nameTaken(now, n, c, device, fmt.Sprintf("node %s exists and belongs to another device (%s), which this join token may not replace; %s; "+
			"or, if it is to take that one's place (a new card, a new board), join it with a token from: petrel token create --replace %s",
			h.Node, d.holder(h.Node, device), record.OtherName(), h.Node))
		return
	}
	rival := d.byName[h.Node]
	if rival == nil || rival == n || rival.current == nil {
		d.join(n, c)
		return
	}
	d.probe(now, rival, rival.current, func(now time.Time, alive bool) {
		switch {
		case n.conns[c.tag] != c:
		case alive:
			d.nameTaken(now, n, c, device, fmt.Sprintf("node name %s is in use by another device that is alive (%s); switch that one off, give this one another name with --node-name, or delete the Node first", h.Node, d.holder(h.Node, device)))
		default:
			d.join(n, c)
		}
	})
}

// join spends a use of the device's token, and makes or takes over the Node.
func (d *Dispatch) join(n *node, c *conn) {
	d.joins.commit(n.id, c.hello, c.s.Fingerprint, func(err error) {
		d.callOn(n, func(now time.Time) {
			switch {
			case n.conns[c.tag] != c:
			case err != nil:
				d.refuseJoin(now, n, c, err)
			default:
				d.cfg.Log.Info("device joined", "node", c.hello.Node, "device", n.id)
				d.knocks.give(1) // the budget is for devices without a good token: a thousand new nodes need not wait for it
				d.open(now, n, c, c.hello.Node)
			}
		})
	})
}

func (d *Dispatch) refuseJoin(now time.Time, n *node, c *conn, err error) {
	code := wire.CodeBusy
	if r := (*refusal)(nil); errors.As(err, &r) {
		code = r.code
	}
	d.refuse(now, n, c, code, err.Error())
}

func (d *Dispatch) nameTaken(now time.Time, n *node, c *conn, device, msg string) {
	name := c.hello.Node
	d.in.events.add(now, name, "NameTaken", fmt.Sprintf("device %s wanted to join as %s, which device %s is; it was refused", n.id, name, device))
	d.refuse(now, n, c, wire.CodeNameTaken, msg)
}

// owner returns the fingerprint of the device that a Node belongs to; empty when there is no such Node, or it was created before
// its device joined.
func (d *Dispatch) owner(name string) string {
	if node, ok := control.Get[*corev1.Node](d.cfg.Client, kube.Node, "", name); ok {
		return node.Annotations[kube.NodeKeyAnnotation]
	}
	return ""
}

// holder describes the machine that has a node's name.
func (d *Dispatch) holder(name, device string) string {
	n, _ := control.Get[*corev1.Node](d.cfg.Client, kube.Node, "", name)
	return roster.Describe(device, n, d.session(name) != nil)
}
