package link

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cache"
	"petrel.dev/petrel/edgeagent/identity"
	"petrel.dev/petrel/edgeagent/link/session"
	"petrel.dev/petrel/internal/wire"
)

// Times of reconnecting: full jitter between nothing and a bound that doubles. A refusal that only people can mend starts
// at slowFrom.
const (
	retryMin         = time.Second
	retryMax         = 5 * time.Minute
	slowFrom         = time.Minute
	defaultKeepalive = time.Minute
)

// Config is what a Link is made of.
type Config struct {
	// Dir is DATA/agent: the device's identity and what it remembers of the hub.
	Dir string
	// JoinToken is needed for the first join, and to join again after the Node was deleted.
	JoinToken string
	// NodeName, Labels and Taints are those the Node gets at its first join.
	NodeName string
	Labels   map[string]string
	Taints   []corev1.Taint
	Cache    *cache.Cache
	// Serve serves a stream to a pod and returns when it is over; a stream that it has not closed is closed then. ctx
	// ends with the stream. Nil: streams are refused.
	Serve func(ctx context.Context, req wire.StreamRequest, s wire.Stream)
	// Joined is called after each welcome that is remembered on the disk: from then on the token is not needed. Nil: nothing is called.
	Joined func()
	// Keepalive of the MQTT connection; 0 means one minute.
	Keepalive time.Duration
	// Build is this program's version, for the hub's log.
	Build string
	Log   *slog.Logger
}

// Link is the device's end of the link.
type Link struct {
	cfg      Config
	id       *identity.Identity
	hub      *identity.Hub
	cert     tls.Certificate
	instance [8]byte
	taints   []byte
	reports  *wire.Sender  // outlives sessions
	node     *wire.Object  // the latest report of the node itself
	complete chan struct{} // closed by completed
	once     sync.Once     // of completed

	mu     sync.Mutex
	status Status
}

// Status is how the link is, for people.
type Status struct {
	Connected bool
	Since     time.Time // of the last change of Connected
	Node      string    // the Node's name; empty before the first welcome
	Device    string    // fingerprint
	// Problem is why there is no connection, or what keeps it from its work, in words for people.
	Problem string
	// Removed is true once the hub has said that this Node was deleted.
	Removed bool
}

// New reads the device's identity, or makes it. It fails when the device has never joined and has no token.
func New(cfg Config) (*Link, error) {
	if cfg.Cache == nil || cfg.Log == nil || cfg.Dir == "" {
		return nil, errors.New("link: directory, cache and log are needed")
	}
	if cfg.Keepalive == 0 {
		cfg.Keepalive = defaultKeepalive
	}
	id, err := identity.Load(cfg.Dir)
	if err != nil {
		return nil, err
	}
	hub, err := identity.LoadHub(cfg.Dir, cfg.JoinToken)
	if err != nil {
		return nil, err
	}
	cert, err := wire.DeviceCertificate(id.TLS, id.Static.Public)
	if err != nil {
		return nil, err
	}
	l := &Link{cfg: cfg, id: id, hub: hub, cert: cert, reports: wire.NewSender(), complete: make(chan struct{})}
	if len(cfg.Taints) > 0 {
		if l.taints, err = json.Marshal(cfg.Taints); err != nil {
			return nil, fmt.Errorf("link: taints: %w", err)
		}
	}
	if _, err := rand.Read(l.instance[:]); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	l.status = Status{Since: time.Now(), Node: hub.Node(), Device: id.Fingerprint(), Problem: "not tried yet"}
	return l, nil
}

// Status returns the link's present state.
func (l *Link) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

func (l *Link) setStatus(connected bool, problem string, removed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status.Connected != connected {
		l.status.Since = time.Now()
	}
	l.status.Connected, l.status.Problem, l.status.Node, l.status.Removed = connected, problem, l.hub.Node(), removed
}

// Completed is closed once the desired set is known to name all that is wanted of this node: the hub has said so and the
// cache holds it, or the Node was removed.
func (l *Link) Completed() <-chan struct{} { return l.complete }

func (l *Link) completed() { l.once.Do(func() { close(l.complete) }) }

// ErrJoin is a device that has never been a node and never will be with the join token it has.
var ErrJoin = errors.New("this machine cannot join")

// Run keeps the link until ctx ends. A device that has joined never stops trying; one that never has gives up with ErrJoin
// once the hub has said that its token is no good, since a person waits for the answer.
func (l *Link) Run(ctx context.Context) error {
	for _, c := range l.cfg.Cache.Reports() {
		l.report(c)
	}
	b := backoff{}
	for ctx.Err() == nil {
		addrs, strangers := l.addresses(), 0
		for i, addr := range addrs {
			if i > 0 && b.bound > retryMin {
				break // one address a round from then on; addresses takes turns
			}
			began := time.Now()
			welcomed, err := l.connect(ctx, addr)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if welcomed {
				b.served(time.Since(began))
				l.hub.Worked(addr)
			}
			useless := l.over(addr, err, &b)
			if errors.Is(err, wire.ErrPin) {
				strangers++
			}
			if err := l.hopeless(err, strangers == len(addrs)); err != nil {
				return err
			}
			if useless {
				break
			}
		}
		if err := b.wait(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// hopeless reports whether a first join can never succeed. strangers: at every address of the token is another hub.
func (l *Link) hopeless(err error, strangers bool) error {
	if l.hub.Node() != "" {
		return nil
	}
	var refuse *wire.Refuse
	switch {
	case errors.As(err, &refuse) && (refuse.Code == wire.CodeToken || refuse.Code == wire.CodeUnknownDevice):
		return fmt.Errorf("%w: %s", ErrJoin, refuse.Message)
	case strangers:
		return fmt.Errorf("%w: %w; the join token is of another hub, or of one that was set up anew: make one there with petrel token create", ErrJoin, wire.ErrPin)
	}
	return nil
}

// over takes in why a connection ended. It reports whether trying another address is useless.
func (l *Link) over(addr string, err error, b *backoff) bool {
	addr = withoutPassword(addr)
	problem := fmt.Sprintf("%s: %v", addr, err)
	removed := false
	var refuse *wire.Refuse
	var ended *session.Ended
	switch {
	case errors.As(err, &refuse):
		problem = refuse.Message
		switch refuse.Code {
		case wire.CodeEpoch:
			l.hub.PassEpoch(refuse.Epoch)
			b.bound = retryMin
		case wire.CodeUnknownDevice:
			removed, problem = l.unknown(refuse)
			b.slow()
		case wire.CodeBusy:
		default:
			b.slow()
		}
	case errors.As(err, &ended):
		problem = ended.Message
		if ended.Code == wire.CodeRemoved {
			removed = true
			l.removed(ended.Message)
			b.slow()
		}
	}
	l.cfg.Log.Warn("no link to the hub", "address", addr, "reason", problem)
	l.setStatus(false, problem, removed)
	return refuse != nil || ended != nil
}

// withoutPassword is an address, or a broker's URL, as it may be shown.
func withoutPassword(addr string) string {
	if u, err := url.Parse(addr); err == nil && u.User != nil {
		return u.Redacted()
	}
	return addr
}

// unknown decides what it means that the hub has no Node for this device. The Node was deleted while the device was dark if
// the hub's store is the one that welcomed the device, and has gone on since. Any other store (restored from a backup,
// made new, put back by hand) may simply not have this Node yet: then the pods go on running, and the problem says so.
func (l *Link) unknown(r *wire.Refuse) (removed bool, problem string) {
	if l.hub.Node() == "" {
		return false, r.Message
	}
	why := ""
	switch seen := l.cfg.Cache.Revision(); {
	case r.History == "":
		why = "the hub does not say which history its store has (it is older than this agent, or no longer trusts its store)"
	case l.hub.History() == "":
		why = "this device has not been welcomed yet by a hub that names its store's history"
	case r.History != l.hub.History():
		why = fmt.Sprintf("the hub's store is not the one that knew this device (history %s, the device was welcomed in %s): it was restored from a backup, or begun anew", r.History, l.hub.History())
	case r.Revision < seen:
		why = fmt.Sprintf("the hub's store is behind what this device has seen (revision %d, seen %d): an older copy of it was put back", r.Revision, seen)
	default:
		l.removed(r.Message)
		return true, r.Message
	}
	if err := l.hub.Refused(); err != nil {
		l.cfg.Log.Warn("refusal not remembered on disk", "error", err)
	}
	return false, r.Message + "; this node's pods go on running, because " + why
}

// removed empties the desired set, so that the pods stop.
func (l *Link) removed(why string) {
	l.cfg.Log.Warn("this node was removed from its cluster; stopping its pods", "reason", why)
	if err := l.hub.Removed(); err != nil {
		l.cfg.Log.Error("join secret not forgotten", "error", err)
	}
	if err := l.cfg.Cache.Clear(); err != nil {
		l.cfg.Log.Error("desired set not cleared; trying again at the next refusal", "error", err)
		return
	}
	l.completed()
}

// addresses are where to try, beginning with the one that worked last.
func (l *Link) addresses() []string {
	c := l.hub.Cluster()
	if c.Broker != "" {
		return []string{c.Broker}
	}
	return l.hub.Turn()
}

// report passes one report on to the sender. The node's own report is said once in each session, not kept in the set:
// the hub may have changed what it says of a node that was dark.
func (l *Link) report(c cache.ReportChange) {
	if c.ID.Kind == wire.KindNodeStatus {
		if l.node = c.Object; l.node != nil {
			l.reports.Set(l.node, true)
		} else {
			l.reports.Remove(c.ID)
		}
		return
	}
	if c.Object == nil {
		l.reports.Remove(c.ID)
		return
	}
	l.reports.Set(c.Object, c.Once)
}

// hello is what the device says of itself.
func (l *Link) hello(epoch uint64) wire.Hello {
	h := wire.Hello{
		Epoch: epoch, Instance: l.instance, TLSKey: l.id.PublicTLS(), Node: l.cfg.NodeName, Labels: l.cfg.Labels,
		Taints: l.taints, Keepalive: uint32(l.cfg.Keepalive / time.Second), Build: l.cfg.Build,
	}
	h.TokenID, h.Secret = l.hub.Token()
	return h
}

// backoff is full jitter: any time between nothing and a bound that doubles. The zero value tries at once.
type backoff struct {
	bound time.Duration
	short int // sessions in a row that were welcomed and soon over
}

// Sessions shorter than steadyFrom are no success: each costs a handshake and more. A few are forgiven, as when a hub is
// restarted again and again; after them the pauses grow as if there had been none.
const (
	steadyFrom    = time.Minute
	shortForgiven = 3
)

// served takes in that a session was welcomed, and how long it went on.
func (b *backoff) served(lasted time.Duration) {
	b.bound = 0
	if b.short++; lasted >= steadyFrom {
		b.short = 0
	}
	if over := b.short - shortForgiven; over > 0 {
		b.bound = min(retryMin<<min(over, 10), retryMax)
	}
}

func (b *backoff) slow() { b.bound = max(b.bound, slowFrom) }

func (b *backoff) wait(ctx context.Context) error {
	b.bound = min(max(b.bound, retryMin), retryMax)
	t := time.NewTimer(time.Duration(mathrand.Int64N(int64(b.bound))) + 10*time.Millisecond)
	b.bound = min(2*b.bound, retryMax)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// CacheDir is where the cache of a device lives, under Config.Dir.
func CacheDir(dir string) string { return filepath.Join(dir, "cache") }
