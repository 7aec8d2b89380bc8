package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

const (
	externalKeepalive = 30 * time.Second
	externalQueue     = 1024 // frames on their way to the broker
	retryMin          = time.Second
	retryMax          = 30 * time.Second
)

// ExternalConfig is what an External is made of.
type ExternalConfig struct {
	// URL of the broker: mqtt://[user:password@]host[:1883] or mqtts://...[:8883].
	URL     string
	Cluster string
	// TLS for mqtts; nil means the system's roots.
	TLS *tls.Config
	Log *slog.Logger
}

// External is the bus over a broker that runs elsewhere. That broker is not trusted: frames are sealed.
type External struct {
	cfg    ExternalConfig
	server string
	user   *url.Userinfo
	out    chan outgoing // at most externalQueue; what comes beyond is dropped
	up     atomic.Bool   // there is a session, and the broker has confirmed its subscriptions
}

type outgoing struct {
	topic string
	frame []byte
}

// NewExternal checks the URL; Run connects.
func NewExternal(cfg ExternalConfig) (*External, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("broker URL: %w", err)
	}
	server, err := wire.BrokerAddress(u)
	if err != nil {
		return nil, err
	}
	return &External{cfg: cfg, server: server, user: u.User, out: make(chan outgoing, externalQueue)}, nil
}

// Publish sends a frame; when the broker does not keep up, it is dropped.
func (e *External) Publish(topic string, frame []byte) {
	select {
	case e.out <- outgoing{topic, frame}:
	default:
	}
}

// LastSeen returns zero, because the hub does not see keepalives: they are between the node and its broker, which only reports when
// a node is gone.
func (e *External) LastSeen(string) time.Time { return time.Time{} }

// Health returns why no node can be reached, or nil while there is a session with the broker. It is shown
// without credentials, so the broker's address and error are in the hub's log only.
func (e *External) Health() error {
	if !e.up.Load() {
		return errors.New("the external broker is not connected: no node is reached, the API serves; the hub's log has the reason")
	}
	return nil
}

// Guard does nothing: the external broker decides who may connect to it.
func (e *External) Guard(func(device string) bool) {}

// Run connects, again after each failure, and passes frames on until ctx ends. receive must return at once.
func (e *External) Run(ctx context.Context, receive func(topic string, frame []byte), connected func(bool)) error {
	wait := retryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := e.session(ctx, receive, connected)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > time.Minute {
			wait = retryMin
		}
		pause := time.Duration(rand.Int64N(int64(wait)))
		e.cfg.Log.Warn("broker connection lost", "broker", e.server, "error", err, "retry", pause)
		wait = min(2*wait, retryMax)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return ctx.Err()
}

// dial opens the connection under one session.
func (e *External) dial(ctx context.Context) (net.Conn, error) {
	scheme, addr, _ := strings.Cut(e.server, "://")
	d := &net.Dialer{Timeout: connectLimit}
	if scheme == "tcp" {
		return d.DialContext(ctx, "tcp", addr)
	}
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	return (&tls.Dialer{NetDialer: d, Config: e.cfg.TLS}).DialContext(ctx, "tcp", addr)
}

// session is one connection, with a client object of its own.
func (e *External) session(ctx context.Context, receive func(string, []byte), connected func(bool)) error {
	lost := make(chan error, 1)
	opts := paho.NewClientOptions().AddBroker(e.server).
		SetClientID(fmt.Sprintf("petrel-hub-%s-%08x", e.cfg.Cluster, rand.Uint32())).
		SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).
		SetOrderMatters(true).SetKeepAlive(externalKeepalive).SetPingTimeout(externalKeepalive / 2).
		SetWriteTimeout(writeLimit).SetConnectTimeout(connectLimit).
		SetConnectionLostHandler(func(_ paho.Client, err error) {
			select {
			case lost <- err:
			default:
			}
		}).
		// The handler only hands over, as paho asks.
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
			contain.Go(e.cfg.Log, "broker/receive", m.Topic(), func() { receive(m.Topic(), m.Payload()) })
		})
	if e.user != nil {
		password, _ := e.user.Password()
		opts.SetUsername(e.user.Username()).SetPassword(password)
	}
	opts.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		c, err := e.dial(ctx)
		if err != nil {
			return nil, err
		}
		return wire.BoundPackets(c), nil
	})
	client := paho.NewClient(opts)
	if err := await(ctx, client.Connect()); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Disconnect(0)
	filters := map[string]byte{
		wire.UpTopic(e.cfg.Cluster, "+"):       1,
		wire.LiveTopic(e.cfg.Cluster, "+"):     1,
		wire.StreamUp(e.cfg.Cluster, "+", "+"): 0,
	}
	sub := client.SubscribeMultiple(filters, nil)
	if err := await(ctx, sub); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	for topic, code := range sub.(*paho.SubscribeToken).Result() {
		if code == 0x80 {
			return fmt.Errorf("broker refuses the hub's subscription to %s: allow it in the broker's access rules", topic)
		}
	}
	e.up.Store(true)
	defer e.up.Store(false)
	connected(true)
	defer connected(false)
	for {
		select {
		case <-ctx.Done():
			e.finish(client)
			return ctx.Err()
		case err := <-lost:
			return err
		case o := <-e.out:
			client.Publish(o.topic, 0, false, o.frame)
		}
	}
}

// finish sends the frames that still wait: the ends of sessions, which nodes would not notice otherwise.
func (e *External) finish(client paho.Client) {
	for {
		select {
		case o := <-e.out:
			client.Publish(o.topic, 0, false, o.frame)
			continue
		default:
		}
		client.Disconnect(250)
		return
	}
}

// await waits for a token no longer than a connection may take.
func await(ctx context.Context, t paho.Token) error {
	timer := time.NewTimer(connectLimit)
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
