package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// Bus carries frames between the hub and the nodes, best effort.
type Bus interface {
	// Publish sends a frame to a topic. It never blocks and may drop; frames of one topic keep their order. The frame
	// must not be changed afterwards.
	Publish(topic string, frame []byte)
	// Run calls receive for each frame on a node's up, live and stream topics until ctx ends; receive returns at once
	// and owns the frame. connected tells when the bus begins to work, and when it stops.
	Run(ctx context.Context, receive func(topic string, frame []byte), connected func(bool)) error
	// Heard tells when the node (its id in topics) last sent anything at all, pings of its connection included; zero when
	// the bus cannot tell, or the node has no connection. It still tells while receive is given a node's last words.
	Heard(node string) time.Time
	// Guard has the bus keep room for the devices that known knows (by id in topics), whatever strangers do. It is called
	// once, before Run.
	Guard(known func(device string) bool)
}

// TokenIssuer makes ServiceAccount tokens; hub/auth implements it. Nil audiences mean the API server's own.
type TokenIssuer interface {
	IssueToken(ctx context.Context, sa *corev1.ServiceAccount, pod *corev1.Pod, audiences []string, lifetime time.Duration) (token string, expires time.Time, err error)
}

// Config is what a Dispatch is made of.
type Config struct {
	Client control.Client
	Bus    Bus
	Tokens TokenIssuer
	Keys   Keys
	// Addresses (host:port) are where agents reach this hub; they remember them.
	Addresses []string
	// History names the history of the hub's store, and its revision now: a node takes "unknown" for "deleted" only from
	// the history that welcomed it. Nil, or an empty id, makes every node keep its pods when it is not known.
	History func() (id string, revision uint64)
	// Settings are the cluster's networks, passed on to nodes.
	Settings wire.Settings
	Log      *slog.Logger
}

// Dispatch is the hub's end of all links.
type Dispatch struct {
	cfg   Config
	inbox *inbox
	known roster
	pres  presence
	in    *intake

	// What follows is the loop's alone.
	nodes    map[string]*node // by device id
	byName   map[string]*node // the device that speaks for a Node, once it has been welcomed
	set      *desired
	images   *images
	revision uint64
	refusals refusals
	pending  map[string]*node // devices that are not known and have begun a handshake
	knocks   bucket           // of such devices
	wake     time.Time        // when a session or token wants attention next
	nudges   []time.Time      // when to nudge nodes without a session again
	ctx      context.Context
}

// New makes a Dispatch; Run makes it work.
func New(cfg Config) (*Dispatch, error) {
	if cfg.Client == nil || cfg.Bus == nil || cfg.Log == nil || cfg.Keys.ClusterID == "" {
		return nil, errors.New("dispatch: client, bus, keys and log are needed")
	}
	d := &Dispatch{
		cfg: cfg, inbox: newInbox(cfg.Bus.Heard),
		nodes: map[string]*node{}, byName: map[string]*node{}, images: newImages(), pending: map[string]*node{},
	}
	d.inbox.known = d.known.has
	cfg.Bus.Guard(d.known.has)
	d.pres.init(cfg.Bus.Heard)
	d.set = newDesired(d)
	d.in = newIntake(cfg.Client, cfg.Settings, cfg.Log)
	return d, nil
}

// Run serves all nodes until ctx ends. It first learns the whole state, and only then hears nodes.
func (d *Dispatch) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.ctx = ctx
	d.cfg.Client.Subscribe(ctx, d.inbox.change, feedKinds...)
	d.drainChanges()

	var wg sync.WaitGroup
	errs := make(chan error, 2)
	wg.Go(func() { errs <- d.cfg.Bus.Run(ctx, d.inbox.frame, d.inbox.connected) })
	wg.Go(func() { errs <- d.in.run(ctx) })
	err := d.loop(ctx, errs)
	d.shutdown()
	cancel()
	wg.Wait()
	return err
}

// loop is the one goroutine that owns sessions and sets.
func (d *Dispatch) loop(ctx context.Context, errs <-chan error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		// Rounded up a little, so that the timers of many nodes fire together.
		if d.wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(d.wake), 0) + 5*time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-errs:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("dispatch: %w", err)
		case <-timer.C:
			d.wake = time.Time{}
			d.tick(time.Now())
		case <-d.inbox.ready:
			d.work(time.Now())
		}
	}
}

// work takes everything that has come in. Changes go first, so that a hello finds the newest sets.
func (d *Dispatch) work(now time.Time) {
	changes, frames, calls, bus := d.inbox.take()
	if len(changes) > 0 {
		d.applyAll(changes)
	}
	if bus != nil {
		d.bus(now, *bus)
	}
	for _, f := range calls {
		contain.Go(d.cfg.Log, "dispatch/call", "a call", func() { f(now) })
	}
	for _, f := range frames {
		d.frame(now, f)
	}
	d.drainTouched(now)
}

// drainTouched gives those a turn whose sets have changed.
func (d *Dispatch) drainTouched(now time.Time) {
	for n := range d.set.touched {
		delete(d.set.touched, n)
		d.guard(now, n, func() { d.drain(now, n) })
	}
}

// guard runs f, which works on one device. Should it panic, the device loses its sessions, and comes again; what the hub had
// composed for it is composed anew. The others notice nothing.
func (d *Dispatch) guard(now time.Time, n *node, f func()) {
	if err := contain.Do(d.cfg.Log, "dispatch/node", n.id, func() error { f(); return nil }); err != nil {
		d.abandon(now, n, err)
	}
}

func (d *Dispatch) drainChanges() {
	changes, _, _, _ := d.inbox.take()
	d.applyAll(changes)
}

func (d *Dispatch) applyAll(changes []control.Change) {
	for _, c := range changes {
		o := c.Object()
		contain.Go(d.cfg.Log, "dispatch/change", o.GetNamespace()+"/"+o.GetName(), func() { d.apply(c) })
	}
	d.set.flush()
}

// history is the store's, and the largest revision known of it.
func (d *Dispatch) history() (id string, revision uint64) {
	if d.cfg.History != nil {
		id, revision = d.cfg.History()
	}
	return id, max(revision, d.revision)
}

// call runs f on the loop.
func (d *Dispatch) call(f func(now time.Time)) { d.inbox.call(f) }

// callOn runs f, which works on one device, on the loop: a panic in it ends the device's sessions, see guard. Otherwise they
// would go on with half of the work done, waiting for an answer that does not come.
func (d *Dispatch) callOn(n *node, f func(now time.Time)) {
	d.call(func(now time.Time) { d.guard(now, n, func() { f(now) }) })
}

// wakeAt has tick run at t or before.
func (d *Dispatch) wakeAt(t time.Time) {
	if !t.IsZero() && (d.wake.IsZero() || t.Before(d.wake)) {
		d.wake = t
	}
}

// tick gives every session whose time has come a turn, and renews tokens.
func (d *Dispatch) tick(now time.Time) {
	d.nudge(now)
	d.wakeAt(d.images.expire(now))
	for _, n := range d.nodes {
		d.guard(now, n, func() { d.tickNode(now, n) })
	}
	d.drainTouched(now)
}

func (d *Dispatch) tickNode(now time.Time, n *node) {
	for _, c := range n.conns {
		w := c.wake()
		if !w.IsZero() && !now.Before(w) {
			d.drainConn(now, n, c)
		} else {
			d.wakeAt(w)
		}
	}
	if n.current != nil {
		d.set.renew(now, n)
		d.set.overdue(n)
	}
}

// nudgeAfter is when nodes that have not come are nudged, after the bus began to work. Over an external broker they do
// not notice by themselves that the hub has started anew, and a nudge may get lost.
var nudgeAfter = []time.Duration{0, 15 * time.Second, time.Minute, 5 * time.Minute}

// bus: the bus works, or does not. Without it no session can be kept; with it again, nodes are told to come.
func (d *Dispatch) bus(now time.Time, up bool) {
	d.nudges = nil
	if up {
		d.nudgeFrom(now)
		return
	}
	for _, n := range d.nodes {
		for _, c := range n.conns {
			c.s.Fail(errors.New("the hub lost its broker"))
			d.drainConn(now, n, c)
		}
	}
}

func (d *Dispatch) nudgeFrom(now time.Time) {
	d.nudges = d.nudges[:0]
	for _, t := range nudgeAfter {
		d.nudges = append(d.nudges, now.Add(t))
	}
	d.nudge(now)
}

// nudge tells nodes without a session that the hub is here, when it is time to.
func (d *Dispatch) nudge(now time.Time) {
	if len(d.nudges) == 0 {
		return
	}
	if now.Before(d.nudges[0]) {
		d.wakeAt(d.nudges[0])
		return
	}
	for key, name := range d.set.nodeByKey {
		if d.set.session(name) == nil {
			d.cfg.Bus.Publish(wire.DownTopic(d.cfg.Keys.ClusterID, wire.NodeID(key)), wire.NudgeFrame(wire.Tag{}))
		}
	}
	if d.nudges = d.nudges[1:]; len(d.nudges) > 0 {
		d.wakeAt(d.nudges[0])
	}
}

// shutdown tells all nodes that the hub goes, so that they need not find out.
func (d *Dispatch) shutdown() {
	now := time.Now()
	for _, n := range d.nodes {
		if n.current != nil {
			n.current.s.Bye(now, wire.CodeShutdown, "the hub stops")
			d.drain(now, n)
		}
		for _, e := range n.streams {
			e.Fail(fmt.Errorf("%w: the hub stops", wire.ErrStreamCut))
		}
	}
}

// apply takes one change of the feed in.
func (d *Dispatch) apply(c control.Change) {
	for _, o := range []kube.Object{c.Old, c.New} {
		if o != nil {
			d.revision = max(d.revision, revisionOf(o))
		}
	}
	d.set.change(c)
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
