// Package webhook calls the programs that users register as webhooks: for admission (hub/admission/webhook) and for the
// conversion of custom resources. It knows where a webhook is and how to reach it, and nothing of what is asked.
//
//	Target{URL | Service, CABundle} ─► Client.Call ─► connection (kept for a while) ─► POST, JSON ─► bytes of the answer
//
// A webhook is foreign code: its time is the context's, its answer has a bound in bytes, and it cannot send the hub elsewhere (a
// redirect is an error). Errors have upstream's texts.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// defaultPort is the port of a Service that a Target without one means.
	defaultPort = 443
	// defaultTime bounds a call whose context has no end.
	defaultTime = 30 * time.Second
	// idleTime is how long a connection is kept without a call, and what is remembered of a target.
	idleTime = 90 * time.Second
	// maxTargets bounds the targets that are remembered; the longest unused goes first.
	maxTargets = 64
	// maxIdle bounds the idle connections of one target.
	maxIdle = 4
	// maxAnswers bounds the answers that arrive at one time, in bytes, beside smallAnswer of each: hundreds of requests may wait for the
	// same webhook.
	maxAnswers  = 32 << 20
	smallAnswer = 16 << 10
	// maxMessage is how much of an error's body its message shows, in bytes.
	maxMessage = 2048
)

// Dialer connects to Services: the hub itself is no part of the pods' network.
type Dialer interface {
	// DialService connects to a ready endpoint of a Service's port. The caller owns the connection.
	DialService(ctx context.Context, namespace, name string, port int32) (net.Conn, error)
}

// Target is where a webhook is: at a URL, or at a Service when Name is set. It is comparable.
type Target struct {
	URL string // "https://HOST[:PORT]/PATH"

	Namespace, Name string // of the Service
	Port            int32  // of the Service; 0: defaultPort
	Path            string // at the Service; "" or "/PATH"

	// CABundle is PEM of the authorities that the webhook's certificate is verified with. "": those of the machine.
	CABundle string
}

// endpoint returns the URL to post to, and the name that the certificate must have.
func (t *Target) endpoint() (*url.URL, string, error) {
	if t.Name == "" && t.URL == "" {
		return nil, "", errors.New("webhook configuration must have either service or URL")
	}
	if t.Name == "" {
		u, err := url.Parse(t.URL)
		if err != nil {
			//lint:ignore ST1005 upstream's text
			return nil, "", fmt.Errorf("Unparsable URL: %w", err)
		}
		return u, u.Hostname(), nil
	}
	port := t.Port
	if port == 0 {
		port = defaultPort
	}
	name := t.Name + "." + t.Namespace + ".svc"
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(name, strconv.Itoa(int(port))), Path: t.Path}, name, nil
}

// host returns the part of t that calls with one connection have in common.
func (t Target) host() Target {
	t.Path = ""
	if u, err := url.Parse(t.URL); err == nil && t.Name == "" {
		t.URL = u.Scheme + "://" + u.Host
	}
	return t
}

// Client calls webhooks. It is safe for concurrent use; without calls it has neither goroutines nor connections.
type Client struct {
	services Dialer // nil: no Service can be reached

	arriving atomic.Int64 // bytes of answers beyond smallAnswer each

	mu    sync.Mutex
	hosts map[Target]*host // by Target.host; at most maxTargets; guarded by mu
}

// host is a target that connections are kept to.
type host struct {
	transport *http.Transport
	used      time.Time // when it was last asked for; guarded by Client.mu
}

// New returns a client that reaches Services through services; nil: none can be reached.
func New(services Dialer) *Client {
	return &Client{services: services, hosts: map[Target]*host{}}
}

// Call posts body, JSON, to the webhook and returns the body of its answer, of which it takes limit bytes at most. An answer
// that is no success is an *apierrors.StatusError.
func (c *Client) Call(ctx context.Context, t Target, body []byte, limit int64) ([]byte, error) {
	u, _, err := t.endpoint()
	if err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTime)
		defer cancel()
	}
	u.RawQuery = timeoutQuery(ctx)
	transport, err := c.transport(t.host())
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, */*")
	r.Header.Set("User-Agent", "petrel-hub")
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := c.read(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("unexpected error when reading response body. Please retry. Original error: %w", err)
	}
	if int64(len(answer)) > limit {
		return nil, fmt.Errorf("the response has more than %d bytes, which is the limit", limit)
	}
	if res.StatusCode < 200 || res.StatusCode > 206 {
		return nil, failure(res, answer)
	}
	return answer, nil
}

var errManyAnswers = fmt.Errorf("more than %d bytes of webhooks' answers arrive at one time", maxAnswers)

// read reads an answer, as long as all that arrive have room.
func (c *Client) read(r io.Reader) ([]byte, error) {
	var held int64
	defer func() { c.arriving.Add(-held) }()
	var out bytes.Buffer
	for {
		_, err := io.CopyN(&out, r, smallAnswer)
		if err == io.EOF {
			return out.Bytes(), nil
		}
		if err != nil {
			return nil, err
		}
		held += smallAnswer
		if c.arriving.Add(smallAnswer) > maxAnswers {
			return nil, errManyAnswers
		}
	}
}

// timeoutQuery returns how long the hub will wait, for the webhook to know: in whole seconds, rounded up.
func timeoutQuery(ctx context.Context) string {
	deadline, ok := ctx.Deadline()
	left := time.Until(deadline)
	if !ok || left <= 0 {
		return ""
	}
	return "timeout=" + ((left + time.Second - 1) / time.Second * time.Second).String()
}

// failure returns the error of an answer that is no success.
func failure(res *http.Response, body []byte) error {
	message := "unknown"
	if kind := res.Header.Get("Content-Type"); kind == "" || strings.HasPrefix(kind, "text/") {
		message = strings.TrimSpace(string(body[:min(len(body), maxMessage)]))
	}
	return apierrors.NewGenericServerResponse(res.StatusCode, http.MethodPost, schema.GroupResource{}, "", message, 0, true)
}

// transport returns the one that holds the connections to h.
func (c *Client) transport(h Target) (*http.Transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if known := c.hosts[h]; known != nil {
		known.used = now
		return known.transport, nil
	}
	made, err := c.newTransport(h)
	if err != nil {
		return nil, err
	}
	c.forget(now)
	c.hosts[h] = &host{transport: made, used: now}
	return made, nil
}

// forget drops the hosts that are unused for long, and the longest unused one when there are too many. c.mu is held.
func (c *Client) forget(now time.Time) {
	var oldest Target
	for t, h := range c.hosts {
		if now.Sub(h.used) > 2*idleTime {
			delete(c.hosts, t) // its connections have ended by themselves
			continue
		}
		if first := c.hosts[oldest]; first == nil || h.used.Before(first.used) {
			oldest = t
		}
	}
	if len(c.hosts) >= maxTargets {
		go c.hosts[oldest].transport.CloseIdleConnections()
		delete(c.hosts, oldest)
	}
}

// newTransport returns a transport that verifies h by its CABundle. It speaks HTTP/1.1, as upstream's: one HTTP/2 connection would
// send all calls to one of the Service's pods.
func (c *Client) newTransport(h Target) (*http.Transport, error) {
	u, name, err := h.endpoint()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if h.CABundle != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(h.CABundle)) {
			return nil, errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: 64 << 10,
		DialContext:            (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
	}
	if h.Name != "" {
		port, _ := strconv.ParseInt(u.Port(), 10, 32)
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			if c.services == nil {
				return nil, fmt.Errorf("service %s/%s cannot be reached: this hub has no link to its nodes", h.Namespace, h.Name)
			}
			return c.services.DialService(ctx, h.Namespace, h.Name, int32(port))
		}
	}
	return t, nil
}
