package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// Limits of the embedded broker.
const (
	maxPacket    = 256 << 10
	maxPending   = 640 // frames waiting for one node: the windows of the pipe and of all its streams
	maxInflight  = 64  // unacknowledged QoS 1 packets of one node
	maxKeepalive = 300 // seconds
	maxPerNode   = 4   // connections of one device: its own old ones, and those of clones, which the hub names
	// maxSilence is how long a connection may send nothing before a new one of the same device takes its place; it matters only when the
	// device has maxPerNode.
	maxSilence = 5 * time.Second

	// Devices that the hub does not know share these: anybody can make as many keys as they like.
	maxStrangers  = 64               // connections of all of them
	maxPerAddress = 32               // connections of those from one address, or one IPv6 network of 64 bits
	strangerLife  = 75 * time.Second // a join takes less; one who has not joined by then comes again
)

// Config is what a Broker is made of.
type Config struct {
	Cluster string
	// MaxClients bounds the connections of known devices; 0 means 10,000.
	MaxClients int
	Log        *slog.Logger
}

// Broker is the embedded broker. Its methods may be called from any goroutine, except Guard.
type Broker struct {
	cfg    Config       // does not change after New
	server *mqtt.Server // set by New, never nil
	// to is where frames of nodes go: nil before Run and after it. What arrives then is dropped; the pipe repeats it.
	to atomic.Pointer[func(topic string, frame []byte)]

	running chan struct{}            // closed when Run begins: from then on known may be called
	known   func(device string) bool // set before Run, never nil. It is called with mu held, so it must not call the broker

	mu        sync.Mutex
	devices   map[string]*device // those with a connection, by node; guarded by mu
	conns     map[*conn]struct{} // all open connections; guarded by mu
	strangers map[*conn]struct{} // those of conns whose device was not known when it was last checked; guarded by mu
	done      bool               // Run has ended: no connection is admitted any more; guarded by mu
}

// device is a device that has connections. It goes with the last of them.
type device struct {
	conns    int          // those that are not evicted; guarded by Broker.mu
	lastSeen atomic.Int64 // when it last sent anything, in nanoseconds since start
}

// start is the origin of times that are kept as a number. It has a monotonic reading, so a jump of the wall clock does not
// change them.
var start = time.Now()

// touch notes that the device has sent something.
func (d *device) touch() { d.lastSeen.Store(int64(time.Since(start))) }

// New returns a broker. It admits no connection until Run.
func New(cfg Config) (*Broker, error) {
	if cfg.MaxClients == 0 {
		cfg.MaxClients = 10_000
	}
	caps := mqtt.NewDefaultServerCapabilities()
	caps.MaximumClients = int64(cfg.MaxClients) + maxStrangers + 1
	caps.MaximumClientWritesPending = maxPending
	caps.MaximumPacketSize = maxPacket
	caps.MaximumInflight = maxInflight
	caps.ReceiveMaximum = maxInflight
	caps.MaximumSessionExpiryInterval = 0
	caps.MaximumQos = 1
	caps.RetainAvailable = 0
	caps.SharedSubAvailable = 0
	caps.TopicAliasMaximum = 0
	caps.MinimumProtocolVersion = 4
	b := &Broker{cfg: cfg, devices: map[string]*device{}, conns: map[*conn]struct{}{}, strangers: map[*conn]struct{}{},
		running: make(chan struct{}), known: func(string) bool { return true }}
	// Serve is never called: it would start tickers for features that are off. Connections come by ServeConn.
	b.server = mqtt.New(&mqtt.Options{
		Capabilities: caps, InlineClient: true, Logger: slog.New(slog.DiscardHandler),
		SysTopicResendInterval: 1 << 30,
	})
	if err := b.server.AddHook(&hook{b: b}, nil); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return b, nil
}

// Guard reserves room for the devices for which known returns true. It must be called before Run; without it, all devices count
// as known.
func (b *Broker) Guard(known func(device string) bool) { b.known = known }

// Run passes frames from nodes' up, live and stream topics to receive until ctx ends, then closes all connections.
// receive must return at once; the frame is its own. connected is called with true once the bus works.
func (b *Broker) Run(ctx context.Context, receive func(topic string, frame []byte), connected func(bool)) error {
	b.to.Store(&receive)
	close(b.running)
	connected(true)
	<-ctx.Done()
	b.to.Store(nil)
	b.mu.Lock()
	b.done = true
	for c := range b.conns {
		c.cut()
	}
	b.mu.Unlock()
	return ctx.Err()
}

// Health returns why no node can be reached, or nil while Run runs.
func (b *Broker) Health() error {
	if b.to.Load() == nil {
		return errors.New("the embedded broker does not run: no node is reached")
	}
	return nil
}

// Publish sends a frame to a node. It never blocks; a frame for a node that is not there, or does not keep up, is dropped.
func (b *Broker) Publish(topic string, frame []byte) {
	// The only errors are of the library's own making: an inline client, QoS 0, a topic of ours.
	if err := b.server.Publish(topic, frame, false, 0); err != nil {
		b.cfg.Log.Debug("frame not published", "topic", topic, "error", err)
	}
}

// LastSeen is when the node last sent anything on a connection, MQTT's own packets included; zero when it has none.
// receive is called with the end of a connection while the connection still counts here.
func (b *Broker) LastSeen(node string) time.Time {
	b.mu.Lock()
	d := b.devices[node]
	b.mu.Unlock()
	if d == nil {
		return time.Time{}
	}
	now := time.Now() // counted back from, since the wall clock may have been set meanwhile
	return now.Add(time.Duration(d.lastSeen.Load()) - now.Sub(start))
}

// ServeConn serves a connection on which TLS has agreed on wire.ALPN, and returns when it has ended. It closes c.
func (b *Broker) ServeConn(c net.Conn) {
	defer c.Close()
	if nc := b.identify(c); nc != nil {
		_ = contain.Do(b.cfg.Log, "broker/connection", nc.node, func() error { b.serve(nc); return nil })
	}
}

// identify returns c with the device that TLS has proved, or nil after it has logged why c is refused. It is not part of ServeConn, because
// TLS's state lies on the stack: with it the stack of each link stays twice as large for its whole life.
//
//go:noinline
func (b *Broker) identify(c net.Conn) *conn {
	tc, ok := c.(*tls.Conn)
	if !ok {
		b.cfg.Log.Warn("link connection without TLS refused", "remote", c.RemoteAddr())
		return nil
	}
	fp, err := wire.DeviceOf(tc.ConnectionState())
	if err != nil {
		b.cfg.Log.Info("link connection refused", "remote", c.RemoteAddr(), "error", err)
		return nil
	}
	starting := time.NewTimer(connectLimit)
	defer starting.Stop()
	select { // known answers only once the hub has its Nodes
	case <-b.running:
	case <-starting.C:
		return nil
	}
	return &conn{Conn: c, fp: fp, node: wire.NodeID(fp), from: Network(c.RemoteAddr()), since: time.Now()}
}

// serve serves a device's connection.
func (b *Broker) serve(nc *conn) {
	c := nc.Conn
	if err := b.enter(nc); err != nil {
		b.cfg.Log.Debug("link connection refused", "remote", c.RemoteAddr(), "device", nc.node, "error", err)
		return
	}
	defer b.leave(nc)
	life := time.AfterFunc(strangerLife, func() {
		if !b.known(nc.node) {
			c.Close()
		}
	})
	defer life.Stop()
	if err := c.SetReadDeadline(time.Now().Add(connectLimit)); err != nil {
		return
	}
	if err := b.server.EstablishConnection("petrel", nc); err != nil {
		b.cfg.Log.Debug("link connection ended", "device", nc.node, "error", err)
	}
}

func (b *Broker) enter(c *conn) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.done:
		return errors.New("the hub stops")
	case !b.known(c.node):
		if err := b.admitStranger(c); err != nil {
			return err
		}
	case len(b.conns)-len(b.strangers) >= b.cfg.MaxClients:
		return fmt.Errorf("%d connections are the limit", b.cfg.MaxClients)
	}
	d := b.devices[c.node]
	if d == nil {
		d = &device{}
		b.devices[c.node] = d
	}
	if d.conns >= maxPerNode && !b.closeSilent(c.node) {
		delete(b.strangers, c)
		return fmt.Errorf("device has %d connections already", maxPerNode)
	}
	d.conns++
	c.device = d
	c.touch()
	b.conns[c] = struct{}{}
	return nil
}

// closeSilent closes that connection of a device which has sent nothing for longest, and reports whether there was one to close.
// A device that moves from network to network leaves connections behind, and the broker learns of their end only when the
// keepalive runs out. b.mu is held.
func (b *Broker) closeSilent(node string) bool {
	var silent *conn
	for c := range b.conns {
		if c.node == node && !c.evicted && (silent == nil || c.lastSeen.Load() < silent.lastSeen.Load()) {
			silent = c
		}
	}
	if silent == nil || time.Since(start)-time.Duration(silent.lastSeen.Load()) < maxSilence {
		return false
	}
	silent.evicted = true
	silent.device.conns--
	silent.cut()
	return true
}

func (b *Broker) leave(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
	delete(b.strangers, c)
	if !c.evicted {
		c.device.conns--
	}
	if c.device.conns == 0 {
		delete(b.devices, c.node)
	}
}

// receive hands a frame to the hub.
func (b *Broker) receive(topic string, frame []byte) {
	if r := b.to.Load(); r != nil {
		(*r)(topic, frame)
	}
}

// hook is the rules of the embedded broker: which connections, topics and subscriptions it accepts.
type hook struct {
	mqtt.HookBase
	b *Broker
}

func (h *hook) ID() string { return "petrel" }

func (h *hook) Provides(b byte) bool {
	return bytes.IndexByte([]byte{
		mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnSubscribe, mqtt.OnPublish, mqtt.OnDisconnect,
	}, b) >= 0
}

// OnConnect refuses what a Petrel agent does not do.
func (h *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return packets.ErrNotAuthorized
	}
	err := h.check(c, &pk.Connect)
	if err != nil {
		h.b.cfg.Log.Warn("link connection refused", "device", c.node, "remote", cl.Net.Remote, "error", err)
		return packets.ErrNotAuthorized
	}
	c.will = pk.Connect.WillPayload
	return nil
}

func (h *hook) check(c *conn, p *packets.ConnectParams) error {
	switch {
	// The client id starts with the device's id; what follows distinguishes its processes, so that a clone does not
	// disconnect the original before the hub can look at both.
	case p.ClientIdentifier != c.node && !strings.HasPrefix(p.ClientIdentifier, c.node+"."):
		return fmt.Errorf("client id %q is not the device's", p.ClientIdentifier)
	case len(p.ClientIdentifier) > 64:
		return errors.New("client id too long")
	case !p.Clean:
		return errors.New("a session that outlives its connection")
	case p.Keepalive == 0 || p.Keepalive > maxKeepalive:
		return fmt.Errorf("keepalive of %d s, must be 1 to %d", p.Keepalive, maxKeepalive)
	case p.WillFlag && p.WillTopic != wire.LiveTopic(h.b.cfg.Cluster, c.node):
		return fmt.Errorf("will topic %q is not the device's", p.WillTopic)
	case p.WillRetain || len(p.WillPayload) > 64:
		return errors.New("will retained or too long")
	}
	return nil
}

// OnConnectAuthenticate accepts each connection of ours: TLS has authenticated the device, and OnConnect has checked its names.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	_, ok := cl.Net.Conn.(*conn)
	return ok
}

// OnACLCheck allows a node to publish on its up topics and to receive from its down topics.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return false
	}
	if !write && topic == wire.StreamDown(h.b.cfg.Cluster, c.node, "+") {
		return true // the filter; ParseTopic takes no wildcard
	}
	cluster, node, _, kind, ok := wire.ParseTopic(topic)
	if !ok || cluster != h.b.cfg.Cluster || node != c.node {
		return false
	}
	if write {
		return kind == wire.TopicUp || kind == wire.TopicLive || kind == wire.TopicStreamUp
	}
	return kind == wire.TopicDown || kind == wire.TopicStreamDown
}

// OnSubscribe leaves a node only the two filters that an agent subscribes to. OnACLCheck must allow every stream topic, because
// frames that are delivered pass it too; a subscription for each of them would fill the hub's memory.
func (h *hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c, ok := cl.Net.Conn.(*conn)
	for i := range pk.Filters {
		f := &pk.Filters[i].Filter
		if !ok || *f != wire.DownTopic(h.b.cfg.Cluster, c.node) && *f != wire.StreamDown(h.b.cfg.Cluster, c.node, "+") {
			*f = "" // no valid filter, so it is refused
		}
	}
	return pk
}

// OnPublish hands frames of nodes to the hub and has the library acknowledge but not route them.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	pk.FixedHeader.Retain = false
	h.b.receive(pk.TopicName, pk.Payload)
	return pk, packets.CodeSuccessIgnore
}

// OnDisconnect delivers the connection's will, however it ended.
func (h *hook) OnDisconnect(cl *mqtt.Client, err error, expire bool) {
	if c, ok := cl.Net.Conn.(*conn); ok && c.will != nil {
		h.b.receive(wire.LiveTopic(h.b.cfg.Cluster, c.node), c.will)
	}
}
