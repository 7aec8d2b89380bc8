package dispatch

import (
	"encoding/hex"
	"fmt"
	"time"

	"petrel.dev/petrel/internal/wire"
)

// admit judges a hello: may this device have a session, as which Node?
//
//	same device, another process is alive  → refused, cloned
//	known key                              → welcome
//	unknown key, no token                  → refused, unknown device
//	unknown key, token, name in use by a live device → refused, name taken
//	unknown key, token                     → join: the Node is made, or gets this key
//
// "Alive" is found out by asking (probe), never by belief.
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

// probe asks whether a session's node is alive, and calls f with the answer.
func (d *Dispatch) probe(now time.Time, n *node, c *conn, f func(now time.Time, alive bool)) {
	c.alive = append(c.alive, f)
	c.s.Probe(now)
	d.drainConn(now, n, c)
}

func (d *Dispatch) cloned(now time.Time, n *node, cur, c *conn) {
	msg := fmt.Sprintf("two agents use the device key of node %s at the same time (process %s is connected, %s was refused): "+
		"a cloned card or image; on the copy remove the agent's data directory and join it again with a new token",
		n.name, hex.EncodeToString(cur.hello.Instance[:]), hex.EncodeToString(c.hello.Instance[:]))
	d.cfg.Log.Warn("cloned device refused", "node", n.name, "device", n.id)
	d.in.nodeEvent(n.name, "ClonedDevice", msg)
	d.refuse(now, n, c, wire.CodeCloned, msg)
}

func (d *Dispatch) refuse(now time.Time, n *node, c *conn, code wire.Code, msg string) {
	d.cfg.Log.Info("device refused", "device", n.id, "wants", c.hello.Node, "code", code, "reason", msg)
	history, revision := d.history()
	c.s.Refuse(now, wire.Refuse{Code: code, Message: msg, Epoch: n.epoch, Revision: revision, History: history})
	d.drainConn(now, n, c)
}

func (d *Dispatch) admitKey(now time.Time, n *node, c *conn) {
	if n.conns[c.tag] != c {
		return // gone while its rival was asked
	}
	h := c.hello
	if h.Epoch <= n.epoch {
		d.refuse(now, n, c, wire.CodeEpoch, fmt.Sprintf("epoch %d is not larger than %d, which this device has used already", h.Epoch, n.epoch))
		return
	}
	fp := c.s.Fingerprint
	if name, ok := d.set.nodeByKey[fp]; ok {
		d.open(now, n, c, name)
		return
	}
	if h.Secret == "" {
		d.refuse(now, n, c, wire.CodeUnknownDevice, "the hub knows no Node with this device's key: the Node was deleted, or the device never joined; join it again with a new token (petrel token create)")
		return
	}
	other := d.byName[h.Node]
	if other == nil || other == n || other.current == nil {
		d.join(n, c)
		return
	}
	rival := other.current
	d.probe(now, other, rival, func(now time.Time, alive bool) {
		switch {
		case alive:
			msg := fmt.Sprintf("node name %s is in use by another device that is alive (%s); give this one another name with --node-name, or delete the Node first", h.Node, other.id)
			d.in.nodeEvent(h.Node, "NameTaken", fmt.Sprintf("device %s wanted to join as %s, which device %s is; it was refused", n.id, h.Node, other.id))
			d.refuse(now, n, c, wire.CodeNameTaken, msg)
		case n.conns[c.tag] == c:
			d.join(n, c)
		}
	})
}
