// Package probe asks containers how they are: by a command, an HTTP request, a TCP connection or a gRPC health check.
//
// Check asks once. Gauge turns the answers into an opinion, with the thresholds that the pod sets. Run does both in a
// container's rhythm.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/internal/kube"
)

// Target is where a probe goes.
type Target struct {
	// Host is the pod's address; that of a pod on the node's own network may change.
	Host func() string
	// Port resolves a port by number or name.
	Port func(p intstr.IntOrString) (int, error)
	// Exec runs a command in the container and returns its exit code and output.
	Exec func(ctx context.Context, command []string) (int, string, error)
}

// Gauge is an opinion that needs several equal answers in a row to change.
type Gauge struct {
	Success, Failure int32 // how many; at least 1
	OK               bool  // the opinion; set it to what holds before the first answer
	run              int32
	last             bool
}

// Add takes an answer and reports whether the opinion follows from it: it changed, or its threshold was reached.
func (g *Gauge) Add(ok bool) (decided bool) {
	if ok != g.last || g.run == 0 {
		g.run, g.last = 0, ok
	}
	g.run++
	need := max(g.Failure, 1)
	if ok {
		need = max(g.Success, 1)
	}
	if g.run < need {
		return false
	}
	g.OK = ok
	return true
}

// Run probes until ctx ends or report returns false. report gets each formed opinion and the output of the last answer.
// failed gets every single bad answer, for events. A question that could not be asked at all is no answer: an exec probe
// says nothing about its container while the container runtime is away.
func Run(ctx context.Context, p *corev1.Probe, t Target, ok bool, report func(ok bool, output string) bool, failed func(output string)) {
	g := Gauge{Success: p.SuccessThreshold, Failure: p.FailureThreshold, OK: ok}
	if g.Failure == 0 {
		g.Failure = 3
	}
	period := kube.Seconds(max(p.PeriodSeconds, 0))
	if period == 0 {
		period = 10 * time.Second
	}
	wait := kube.Seconds(p.InitialDelaySeconds)
	if wait == 0 && ok { // of an adopted container: spread the probes of a restarted agent
		wait = time.Duration(rand.Int64N(int64(period)))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = period
		good, output, err := Check(ctx, p, t)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			failed(err.Error())
			continue
		}
		if !good {
			failed(output)
		}
		if g.Add(good) && !report(g.OK, output) {
			return
		}
	}
}

// errUnasked means that there is no answer, because the question did not get there.
var errUnasked = errors.New("probe could not be carried out")

// Check asks once. An error says that there is no answer.
func Check(ctx context.Context, p *corev1.Probe, t Target) (ok bool, output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, kube.Seconds(max(p.TimeoutSeconds, 1)))
	defer cancel()
	output, err = check(ctx, p, t)
	switch {
	case err == nil:
		return true, output, nil
	case ctx.Err() != nil && p.Exec != nil:
		return false, fmt.Sprintf("command timed out: %q timed out after %ds", strings.Join(p.Exec.Command, " "), max(p.TimeoutSeconds, 1)), nil
	case errors.Is(err, errUnasked):
		return false, "", err
	}
	return false, err.Error(), nil
}

func check(ctx context.Context, p *corev1.Probe, t Target) (string, error) {
	switch {
	case p.Exec != nil:
		code, out, err := t.Exec(ctx, p.Exec.Command)
		switch {
		case err != nil:
			return out, fmt.Errorf("%w: %w", errUnasked, err)
		case code != 0:
			return out, errors.New(out)
		}
		return out, nil
	case p.HTTPGet != nil:
		return checkHTTP(ctx, p.HTTPGet, t)
	case p.TCPSocket != nil:
		port, err := t.Port(p.TCPSocket.Port)
		if err != nil {
			return "", err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(orHost(p.TCPSocket.Host, t), strconv.Itoa(port)))
		if err != nil {
			return "", err
		}
		return "", conn.Close()
	case p.GRPC != nil:
		return checkGRPC(ctx, p.GRPC, t)
	}
	return "", errors.New("the probe has no handler")
}

func checkHTTP(ctx context.Context, h *corev1.HTTPGetAction, t Target) (string, error) {
	code, body, err := Get(ctx, h, t, Probing)
	if err != nil {
		return "", err
	}
	if code < 200 || code >= 400 {
		return "", fmt.Errorf("HTTP probe failed with statuscode: %d", code)
	}
	return body, nil
}

// Purpose names who asks, in the User-Agent that a container's access log shows.
type Purpose string

// A request is made for a probe or for a lifecycle hook.
const (
	Probing   Purpose = "probe"
	Lifecycle Purpose = "lifecycle"
)

// Get makes an HTTP request of a probe or a lifecycle hook, and returns the status code and the first 10 KiB of the body.
func Get(ctx context.Context, h *corev1.HTTPGetAction, t Target, why Purpose) (int, string, error) {
	port, err := t.Port(h.Port)
	if err != nil {
		return 0, "", err
	}
	u, err := url.Parse(h.Path)
	if err != nil {
		u = &url.URL{Path: h.Path}
	}
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	u.Scheme = strings.ToLower(or(string(h.Scheme), "http"))
	u.Host = net.JoinHostPort(orHost(h.Host, t), strconv.Itoa(port))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, "", err
	}
	setHeaders(req, h.HTTPHeaders, why)
	client := &http.Client{
		// A probe asks whether something answers, not who it is. It must not ask for gzip: some servers answer that
		// differently, and nobody here would unpack it.
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Proxy: nil},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 10<<10))
	return resp.StatusCode, string(body), nil
}

// setHeaders writes the headers that the pod gives. They take the place of the usual User-Agent and Accept; an empty
// Accept sends none. The rule is kubelet's.
func setHeaders(req *http.Request, headers []corev1.HTTPHeader, why Purpose) {
	for _, h := range headers {
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", "kube-"+string(why)+"/1.36")
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	} else if req.Header.Get("Accept") == "" {
		req.Header.Del("Accept")
	}
	req.Host = req.Header.Get("Host")
}

func checkGRPC(ctx context.Context, g *corev1.GRPCAction, t Target) (string, error) {
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(t.Host(), strconv.Itoa(int(g.Port))),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("kube-probe/1.36"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	service := ""
	if g.Service != nil {
		service = *g.Service
	}
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(false))
	if err != nil {
		return "", err
	}
	if resp.Status != healthpb.HealthCheckResponse_SERVING {
		return "", fmt.Errorf("service unhealthy (responded with %q)", resp.Status.String())
	}
	return "service healthy", nil
}

func orHost(host string, t Target) string {
	if host != "" {
		return host
	}
	return t.Host()
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
