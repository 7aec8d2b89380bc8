package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"petrel.dev/petrel/hub/dispatch/desired"
	"petrel.dev/petrel/hub/dispatch/due"
	"petrel.dev/petrel/hub/dispatch/images"
	"petrel.dev/petrel/hub/dispatch/tokens"
	"petrel.dev/petrel/internal/stall"
	"petrel.dev/petrel/internal/wire"
)

// New returns a Dispatch; Run serves the nodes.
func New(cfg Config) (*Dispatch, error) {
	if cfg.Client == nil || cfg.Bus == nil || cfg.Log == nil || cfg.Keys.ClusterID == "" {
		return nil, errors.New("dispatch: client, bus, keys and log are needed")
	}
	d := &Dispatch{
		round: stall.Work{Name: "dispatcher"},
		cfg:   cfg, inbox: newInbox(cfg.Bus.LastSeen), joins: newJoins(cfg.Client, cfg.Log),
		nodes: map[string]*node{}, byName: map[string]*node{}, pending: map[string]*node{},
		common: wire.NewShared(), touched: map[*node]struct{}{}, wakes: due.New[*node](),
	}
	d.inbox.known = d.known.Has
	cfg.Bus.Guard(d.known.Has)
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
