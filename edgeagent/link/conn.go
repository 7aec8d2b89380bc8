package link

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"petrel.dev/petrel/edgeagent/link/session"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/wire"
)

const (
	connectLimit = 20 * time.Second
	writeLimit   = 20 * time.Second
	pingLimit    = 20 * time.Second
	partingLimit = 250 * time.Millisecond // to get the good-bye out
	storeRetry   = 10 * time.Second       // before a disk that does not take the desired state is asked again
	inQueue      = 64                     // frames waiting for the session; what is dropped is repeated
	outQueue     = 64
	streamQueue  = 1024
)

// connection is one MQTT connection and the session on it.
type connection struct {
	l         *Link
	place     wire.Place
	lastWords wire.LastWords
	client    paho.Client
	in        chan []byte
	lost      chan error
	frames    chan []byte // to up
	streams   *streams
	s         *session.Session
	welcomed  bool

	settings *wire.Settings // to be stored
	owed     []*wire.Batch  // to be stored and answered; the hub sends no more before
	retry    time.Time      // when to try again; zero: the disk takes it

	mu   sync.Mutex
	conn net.Conn // under client
}

// connect makes one connection and serves it to its end. It reports whether the hub has welcomed the device on it.
func (l *Link) connect(ctx context.Context, addr string) (welcomed bool, err error) {
	cluster := l.hub.Cluster()
	epoch, err := l.hub.NextEpoch()
	if err != nil {
		l.cfg.Log.Warn("epochs not reserved; going on without", "error", err)
	}
	c := &connection{
		l: l, in: make(chan []byte, inQueue), lost: make(chan error, 1), frames: make(chan []byte, outQueue),
		place: wire.Place{Cluster: cluster.ID, Node: wire.NodeID(l.id.Fingerprint())},
	}
	if _, err := rand.Read(c.place.Tag[:]); err != nil {
		return false, fmt.Errorf("link: %w", err)
	}
	if _, err := rand.Read(c.lastWords[:]); err != nil {
		return false, fmt.Errorf("link: %w", err)
	}
	c.streams = newStreams(l.cfg.Serve, c.place, l.cfg.Log)
	if err := c.dial(ctx, cluster, addr); err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.hangUp()
	defer c.streams.cut()
	go func() {
		if err := contain.Do(l.cfg.Log, "link/write", addr, func() error { c.write(ctx); return nil }); err != nil {
			c.fail(err)
		}
	}()

	hello := l.hello(epoch)
	hello.Live = c.lastWords.Hash()
	c.s, err = session.New(time.Now(), session.Config{
		Place: c.place, Key: l.id.Static, Hub: cluster.Key, Hello: hello, Desired: l.cfg.Cache,
		Revision: l.cfg.Cache.Revision, Reports: l.reports,
	})
	if err != nil {
		return false, err
	}
	err = contain.Do(l.cfg.Log, "link/session", addr, func() error { return c.loop(ctx) })
	c.s.Fail(err)
	return c.welcomed, err
}

// dial opens the MQTT connection and subscribes to the device's down topics.
func (c *connection) dial(ctx context.Context, cluster jointoken.Cluster, addr string) error {
	opts := paho.NewClientOptions().
		SetClientID(c.place.Node+"."+hex.EncodeToString(c.l.instance[:4])).
		SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).
		SetOrderMatters(true).SetKeepAlive(c.l.cfg.Keepalive).SetPingTimeout(pingLimit).
		SetWriteTimeout(writeLimit).SetConnectTimeout(connectLimit).
		SetBinaryWill(wire.LiveTopic(cluster.ID, c.place.Node), wire.LiveFrame(c.place.Tag, c.lastWords), 1, false).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
			contain.Go(c.l.cfg.Log, "link/receive", addr, func() { c.handle(m) })
		}).
		SetConnectionLostHandler(func(_ paho.Client, err error) { c.fail(err) })
	dial := func() (net.Conn, error) { return dialHub(ctx, addr, wire.PinnedTLS(c.l.cert, cluster.Pin)) }
	if cluster.Broker == "" {
		opts.AddBroker("tcp://" + addr)
	} else {
		var err error
		if dial, err = brokerDial(ctx, opts, cluster.Broker); err != nil {
			return err
		}
	}
	var stranger error // the library does not pass on why it could not connect
	opts.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		conn, err := dial()
		if errors.Is(err, wire.ErrPin) {
			stranger = wire.ErrPin
		}
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.conn = wire.BoundPackets(conn)
		return c.conn, nil
	})
	c.client = paho.NewClient(opts)
	if err := await(ctx, c.client.Connect()); err != nil {
		c.hangUp()
		if ctx.Err() == nil && stranger != nil {
			err = stranger
		}
		return fmt.Errorf("connect: %w", err)
	}
	sub := c.client.SubscribeMultiple(map[string]byte{
		wire.DownTopic(cluster.ID, c.place.Node):       0,
		wire.StreamDown(cluster.ID, c.place.Node, "+"): 0,
	}, nil)
	if err := await(ctx, sub); err != nil {
		c.hangUp()
		return fmt.Errorf("subscribe: %w", err)
	}
	for topic, code := range sub.(*paho.SubscribeToken).Result() {
		if code == 0x80 {
			c.hangUp()
			return fmt.Errorf("the broker refuses the subscription to %s: its access rules must allow user or client %s its own topics", topic, c.place.Node)
		}
	}
	return nil
}

// fail has the loop end the connection.
func (c *connection) fail(err error) {
	select {
	case c.lost <- err:
	default:
	}
}

// hangUp ends the connection without MQTT's good-bye: after one, a broker would keep the device's last words (the will) to
// itself, and a hub that has missed the session's own good-bye would take the node for alive without end.
func (c *connection) hangUp() {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	c.client.Disconnect(0) // for the library's own sake
}

// dialTCP opens a connection that knows within a minute when it is half-open, and says nothing by itself: MQTT's own sign
// of life suffices, and the kernel's would be most of what an idle link carries.
func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		boundUnacked(raw)
	}
	return raw, err
}

// dialHub opens a TLS connection on which only the pinned hub can be.
func dialHub(ctx context.Context, addr string, cfg *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	c, err := dialTLS(ctx, addr, cfg)
	if err != nil {
		return nil, err
	}
	if c.ConnectionState().NegotiatedProtocol != wire.ALPN {
		c.Close()
		return nil, fmt.Errorf("the server at %s does not speak Petrel's link", addr)
	}
	return &smallRecords{Conn: c}, nil
}

// smallRecords writes TLS records of at most a packet's size. The other side keeps a buffer of several times the largest record for as
// long as the connection lasts: some 30 KB for each node of a hub with the records of 16 KB that crypto/tls arrives at by itself.
type smallRecords struct {
	net.Conn
	mu sync.Mutex // one Write at a time, since the pings of the MQTT library come beside its packets
}

const recordSize = 1400

func (c *smallRecords) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	written := 0
	for {
		n, err := c.Conn.Write(b[written:min(written+recordSize, len(b))])
		if written += n; err != nil || written == len(b) {
			return written, err
		}
	}
}

func dialTLS(ctx context.Context, addr string, cfg *tls.Config) (*tls.Conn, error) {
	raw, err := dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// brokerDial is how to reach a broker that is not the hub's own. Its certificate is checked by the system's roots, but not its
// dates: a device with a wrong clock has to get through, and frames are sealed anyhow.
func brokerDial(ctx context.Context, opts *paho.ClientOptions, broker string) (func() (net.Conn, error), error) {
	u, err := url.Parse(broker)
	if err != nil {
		return nil, fmt.Errorf("broker URL: %w", err)
	}
	server, err := wire.BrokerAddress(u)
	if err != nil {
		return nil, err
	}
	opts.AddBroker(server)
	if u.User != nil {
		password, _ := u.User.Password()
		opts.SetUsername(u.User.Username()).SetPassword(password)
	}
	scheme, addr, _ := strings.Cut(server, "://")
	cfg := &tls.Config{
		ServerName: u.Hostname(), MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // replaced by VerifyConnection, which leaves out the dates only
		VerifyConnection: func(cs tls.ConnectionState) error {
			leaf := cs.PeerCertificates[0]
			o := x509.VerifyOptions{DNSName: u.Hostname(), Intermediates: x509.NewCertPool(), CurrentTime: leaf.NotBefore.Add(time.Second)}
			for _, x := range cs.PeerCertificates[1:] {
				o.Intermediates.AddCert(x)
			}
			_, err := leaf.Verify(o)
			return err
		},
	}
	return func() (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectLimit)
		defer cancel()
		if scheme == "tcp" {
			return dialTCP(ctx, addr)
		}
		c, err := dialTLS(ctx, addr, cfg)
		if err != nil {
			return nil, err // not c: a nil *tls.Conn is no nil net.Conn
		}
		return c, nil
	}, nil
}

// handle takes a message from paho. It only hands over.
func (c *connection) handle(m paho.Message) {
	_, _, stream, kind, ok := wire.ParseTopic(m.Topic())
	switch {
	case !ok:
	case kind == wire.TopicStreamDown:
		c.streams.deliver(stream, m.Payload())
	case kind == wire.TopicDown:
		select {
		case c.in <- m.Payload():
		default: // the session is behind; the hub repeats
		}
	}
}

// write hands frames to paho, which may take its time. Frames of the session go before those of streams.
func (c *connection) write(ctx context.Context) {
	up := wire.UpTopic(c.place.Cluster, c.place.Node)
	for {
		select {
		case f := <-c.frames:
			c.client.Publish(up, 1, false, f)
			continue
		default:
		}
		select {
		case <-ctx.Done():
			return
		case f := <-c.frames:
			c.client.Publish(up, 1, false, f)
		case f := <-c.streams.out:
			c.client.Publish(f.topic, 0, false, f.b)
		}
	}
}

// loop drives the session.
func (c *connection) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if end := c.turn(); end != nil {
			return end
		}
		w := c.s.Wake()
		if !c.retry.IsZero() && (w.IsZero() || c.retry.Before(w)) {
			w = c.retry
		}
		if w.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(w), 0))
		}
		select {
		case <-ctx.Done():
			c.s.Stop()
			parting, cancel := context.WithTimeout(context.WithoutCancel(ctx), partingLimit)
			defer cancel()
			for _, f := range c.s.Drain(time.Now()).Frames {
				select {
				case <-c.client.Publish(wire.UpTopic(c.place.Cluster, c.place.Node), 1, false, f).Done():
				case <-parting.Done():
				}
			}
			return ctx.Err()
		case err := <-c.lost:
			return fmt.Errorf("connection lost: %w", err)
		case f := <-c.in:
			c.s.Frame(time.Now(), f)
		case <-c.l.cfg.Cache.ReportsChanged():
			for _, r := range c.l.cfg.Cache.ReportChanges() {
				c.l.report(r)
			}
		case <-timer.C:
		}
	}
}

// turn does what the session wants done, until it wants nothing more now.
func (c *connection) turn() error {
	l := c.l
	for again := true; again; {
		again = false
		out := c.s.Drain(time.Now())
		for _, f := range out.Frames {
			select {
			case c.frames <- f:
			default: // paho is behind; the session repeats
			}
		}
		if w := out.Welcome; w != nil {
			again = true
			c.welcome(w)
		}
		for _, b := range out.Handed {
			l.cfg.Cache.Confirmed(b)
		}
		c.owed = append(c.owed, out.Apply...)
		again = c.store(time.Now()) || again
		for _, o := range out.Open {
			c.streams.open(o)
		}
		if out.Complete {
			l.completed()
		}
		if out.End != nil {
			return out.End
		}
	}
	return nil
}

func (c *connection) welcome(w *wire.Welcome) {
	l := c.l
	c.welcomed = true
	if w.History != l.hub.History() {
		if err := l.cfg.Cache.Rebase(w.Revision); err != nil {
			l.cfg.Log.Warn("revision of the hub's history not stored; until it is, this device would not believe that its Node was deleted", "error", err)
		}
	}
	if err := l.hub.Welcomed(w.Node, w.History, w.Addresses); err != nil {
		l.cfg.Log.Warn("welcome not remembered on disk", "error", err)
	} else if l.cfg.Joined != nil {
		l.cfg.Joined()
	}
	if l.node != nil {
		l.reports.Set(l.node, true)
	}
	c.settings = &w.Settings
	l.setStatus(true, "", false)
	l.cfg.Log.Info("linked to the hub", "node", w.Node, "epoch", l.hub.Epoch())
}

// store makes durable what the hub has sent, and answers. It reports whether it has answered anything. While the disk does
// not take it (full, worn out), the session goes on without: the hub waits for its answer and sends no more, reports go
// up, and it is tried again. To hang up would only have everything sent and refused again.
func (c *connection) store(now time.Time) (answered bool) {
	l := c.l
	if c.settings == nil && len(c.owed) == 0 || now.Before(c.retry) {
		return false
	}
	err := func() error {
		if c.settings != nil {
			if err := l.cfg.Cache.SetSettings(*c.settings); err != nil {
				return err
			}
			c.settings = nil
		}
		for len(c.owed) > 0 {
			hash, err := l.cfg.Cache.Apply(c.owed[0])
			if err != nil {
				return err
			}
			c.s.Applied(c.owed[0].Seq, hash)
			c.owed, answered = c.owed[1:], true
		}
		return nil
	}()
	switch {
	case err != nil:
		c.retry = now.Add(storeRetry)
		problem := fmt.Sprintf("desired state not stored, so not accepted: %v", err)
		l.cfg.Log.Warn("desired state not stored, so not accepted; trying again", "error", err, "retry", storeRetry)
		l.setStatus(true, problem, false)
	case !c.retry.IsZero():
		c.retry = time.Time{}
		l.cfg.Log.Info("desired state is stored again")
		l.setStatus(true, "", false)
	}
	return answered
}

// await waits for a token no longer than a connection may take.
func await(ctx context.Context, t paho.Token) error {
	timer := time.NewTimer(connectLimit + time.Second)
	defer timer.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-timer.C:
		return errors.New("no answer")
	case <-ctx.Done():
		return ctx.Err()
	}
}
