package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"petrel.dev/petrel/hub/dispatch/desired"
	"petrel.dev/petrel/hub/dispatch/images"
	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/wire"
)

// Dispatch is the hub's end of all links.
type Dispatch struct {
	cfg    Config        // not changed after New
	inbox  *inbox        // what comes to the loop
	known  roster        // which devices have a Node
	pres   presence      // who is connected, for others to ask
	in     *intake       // takes in reports, beside the loop
	joins  *joins        // join tokens and new Nodes, beside the loop
	tokens *tokens.Maker // beside the loop; nil: pods get no tokens
	images *images.Images

	// What follows belongs to the loop's goroutine.
	nodes    map[string]*node // by device id
	byName   map[string]*node // the device that speaks for a Node, once it has been welcomed
	set      *desired.Sets
	common   *wire.Shared       // what all nodes get
	touched  map[*node]struct{} // connected nodes whose set has changed in this round
	queue    []queued           // sessions that may have something to do, see drainAll
	revision uint64             // largest seen in the feed
	refusals refusals
	pending  map[string]*node // devices that are not known and have begun a handshake; at most maxStrangers
	knocks   bucket           // of such devices
	wake     time.Time        // when tick has to run; zero: not at all
	nudges   []time.Time      // when to nudge nodes without a session again, next first
}

// New makes a Dispatch; Run makes it work.
func New(cfg Config) (*Dispatch, error) {
	if cfg.Client == nil || cfg.Bus == nil || cfg.Log == nil || cfg.Keys.ClusterID == "" {
		return nil, errors.New("dispatch: client, bus, keys and log are needed")
	}
	d := &Dispatch{
		cfg: cfg, inbox: newInbox(cfg.Bus.LastSeen), joins: newJoins(cfg.Client, cfg.Log),
		nodes: map[string]*node{}, byName: map[string]*node{}, pending: map[string]*node{},
		common: wire.NewShared(), touched: map[*node]struct{}{},
	}
	d.inbox.known = d.known.has
	cfg.Bus.Guard(d.known.has)
	d.pres.init(cfg.Bus.LastSeen)
	d.in = newIntake(cfg.Client, cfg.Settings, cfg.Log)
	d.images = images.New(d.usesImage)
	sets := desired.Config{Sources: desired.Table(), Reader: cfg.Client}
	if cfg.Tokens != nil {
		d.tokens = tokens.NewMaker(cfg.Client, cfg.Tokens, cfg.Log)
		sets.Waits = d.missesToken
	}
	d.set = desired.New(sets)
	return d, nil
}

// Run serves all nodes until ctx ends. It first takes in the whole state, and only then frames of nodes.
func (d *Dispatch) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.cfg.Client.Subscribe(ctx, d.inbox.change, d.set.Kinds()...)
	d.drainChanges(time.Now())

	var wg sync.WaitGroup
	errs := make(chan error, 4) // one of each part, so that none waits for the loop to read it
	wg.Go(func() { errs <- d.cfg.Bus.Run(ctx, d.inbox.frame, d.inbox.connected) })
	wg.Go(func() { errs <- d.in.run(ctx) })
	wg.Go(func() { errs <- d.joins.run(ctx) })
	if d.tokens != nil {
		wg.Go(func() { errs <- d.tokens.Run(ctx) })
	}
	err := d.loop(ctx, errs)
	d.shutdown(time.Now())
	cancel()
	wg.Wait()
	return err
}

// Subscribe calls f with the architectures that images are known to exist for, see images.Images.
func (d *Dispatch) Subscribe(ctx context.Context, f func(image string, architectures []string)) {
	d.images.Subscribe(ctx, f)
}
