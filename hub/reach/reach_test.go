package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/internal/wire/wiretest"
)

// fleet is nodes whose pods answer with their name, on the ports that they listen on.
type fleet struct {
	dark    map[string]bool
	listens map[int32]bool
}

func (f *fleet) OpenStream(_ context.Context, node string, req wire.StreamRequest) (wire.Stream, error) {
	if f.dark[node] {
		return nil, apierrors.NewServiceUnavailable("node " + node + " was last heard of at noon")
	}
	hub, end := wiretest.Streams()
	go func() {
		switch {
		case req.Kind == wire.StreamNode:
			_ = end.CloseSend(context.Background(), wire.ChannelStderr)
			_ = end.Send(context.Background(), wire.ChannelStdout, []byte("agent of "+node))
		case !f.listens[req.Port]:
			_ = end.Close(wire.StreamEnd{Reason: "BadRequest", Message: fmt.Sprintf("port %d of pod %s: connection refused", req.Port, req.Pod)})
			return
		default:
			_ = end.CloseSend(context.Background(), wire.ChannelStderr)
			_ = end.Send(context.Background(), wire.ChannelStdout, []byte(req.Pod+" "+req.PodUID))
		}
		_ = end.Close(wire.StreamEnd{})
	}()
	return hub, nil
}

func pod(namespace, name, node, ip string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}}}
}

func service(name string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: ports}}
}

func slice(service, portName string, port int32, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprintf("%s-%d", service, port), Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}}, Endpoints: endpoints}
}

func at(ip string, ready bool, namespace, pod string) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if pod != "" {
		e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: pod}
	}
	return e
}

// TestDial covers who is reached under which name, and the text for each reason why nobody is.
func TestDial(t *testing.T) {
	objs := []kube.Object{
		pod("a", "web", "n1", "10.42.0.2"), pod("a", "web2", "dark", "10.42.9.2"), pod("a", "new", "", ""), pod("b", "other", "n1", "10.42.0.3"),
		service("web", corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "admin", Port: 81}),
		slice("web", "http", 8080, at("10.42.0.2", true, "a", "web"), at("10.42.9.2", true, "a", "web2")),
		slice("web", "admin", 9090, at("10.42.0.2", false, "a", "web")),
		service("gone", corev1.ServicePort{Port: 80}), slice("gone", "", 8080, at("10.42.0.9", true, "a", "web"), at("10.42.0.2", true, "a", "nobody")),
		service("byhand", corev1.ServicePort{Port: 80}), slice("byhand", "", 8080, at("10.42.0.3", true, "", "")),
		service("local", corev1.ServicePort{Port: 80}), slice("local", "", 8080, at("127.0.0.1", true, "", "")),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "ext"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}},
	}
	f := &fleet{dark: map[string]bool{"dark": true}, listens: map[int32]bool{8080: true}}
	d := New(Config{Objects: controltest.New(t, objs...), Nodes: f})
	podPort := func(name string, port int32) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) { return d.DialPod(ctx, "a", name, port) }
	}
	svc := func(name string, port int32) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) { return d.DialService(ctx, "a", name, port) }
	}
	svcPod := func(name, port string) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) { return d.DialServicePod(ctx, "a", name, port) }
	}
	for name, c := range map[string]struct {
		dial func(context.Context) (net.Conn, error)
		got  string // the answer
		code int    // of the Status; 0: another error, with text
		text string
	}{
		"a pod":                                 {dial: podPort("web", 8080), got: "web uid-web"},
		"nobody listens":                        {dial: podPort("web", 1), text: "connection refused"},
		"no pod":                                {dial: podPort("none", 80), code: 404, text: `pods "none" not found`},
		"no node yet":                           {dial: podPort("new", 80), code: 503, text: "not on a node yet"},
		"a dark node":                           {dial: podPort("web2", 80), code: 503, text: "last heard of at noon"},
		"a Service, past the dark node":         {dial: svc("web", 80), got: "web uid-web"},
		"no Service":                            {dial: svc("none", 80), code: 404, text: `services "none" not found`},
		"no such port":                          {dial: svc("web", 82), code: 503, text: `no service port 82 found for service "web"`},
		"nobody ready":                          {dial: svc("web", 81), code: 503, text: `no endpoints available for service "web"`},
		"references that are not true":          {dial: svc("gone", 80), code: 503, text: "no endpoints available"},
		"an address by hand is a pod's":         {dial: svc("byhand", 80), got: "other uid-other"},
		"not so for users":                      {dial: svcPod("byhand", "80"), code: 503, text: "no endpoints available"},
		"the hub's loopback":                    {dial: svc("local", 80), text: "is not allowed"},
		"the hub's loopback by a name":          {dial: svc("ext", 80), text: "is not allowed"},
		"an external name is nothing for users": {dial: svcPod("ext", ""), code: 503, text: `no endpoints available for service "ext"`},
		"users by number":                       {dial: svcPod("web", "80"), got: "web uid-web"},
		"users by name":                         {dial: svcPod("web", "http"), got: "web uid-web"},
		"the agent":                             {dial: func(ctx context.Context) (net.Conn, error) { return d.DialNode(ctx, "n1", 0) }, got: "agent of n1"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := c.dial(t.Context())
			if err != nil {
				var known apierrors.APIStatus
				code := 0
				if errors.As(err, &known) {
					code = int(known.Status().Code)
				}
				if c.text == "" || code != c.code || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%d: %v; want %d: %s", code, err, c.code, c.text)
				}
				return
			}
			defer conn.Close()
			if b, err := io.ReadAll(conn); c.got == "" || err != nil || string(b) != c.got {
				t.Errorf("%q, %v; want %q", b, err, c.got)
			}
		})
	}
	if len(d.slots.nodes) != 0 {
		t.Errorf("slots are left: %v", d.slots.nodes)
	}
}

// TestDialSeesWhatItsCallerHasSeen holds the cache back: a pod that a client has seen running a moment ago is reached all the same.
func TestDialSeesWhatItsCallerHasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objs := controltest.New(t)
		d := New(Config{Objects: objs, Nodes: &fleet{listens: map[int32]bool{80: true}}})
		objs.Lag(true)
		objs.Put(pod("a", "web", "n1", "10.42.0.2"))
		time.AfterFunc(time.Second, func() { objs.Step(1) })
		conn, err := d.DialPod(t.Context(), "a", "web", 80)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}

// TestSlots checks that one user leaves room for others at a node, that who waits goes on as soon as there is room, and that a
// wait ends with its context.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Objects: controltest.New(t, pod("a", "web", "n1", "10.42.0.2")), Nodes: &fleet{listens: map[int32]bool{80: true}}})
		dial := func(user string, patience time.Duration) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(auth.WithUser(t.Context(), auth.User{Name: user}), patience)
			defer cancel()
			return d.DialPod(ctx, "a", "web", 80)
		}
		var open []net.Conn
		for range maxUser {
			c, err := dial("greedy", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		if _, err := dial("greedy", time.Second); !apierrors.IsTooManyRequests(err) {
			t.Errorf("one more than a user may have: %v", err)
		}
		for range maxNode - maxUser {
			c, err := dial("other", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		time.AfterFunc(time.Second, func() { open[0].Close() })
		c, err := dial("third", time.Minute)
		if err != nil {
			t.Fatalf("a slot that came free: %v", err)
		}
		open[0].Close() // a second time: gives back nothing
		if _, err := dial("third", time.Second); !apierrors.IsTooManyRequests(err) {
			t.Errorf("more than a node carries: %v", err)
		}
		for _, c := range append(open, c) {
			c.Close()
		}
		if len(d.slots.nodes) != 0 {
			t.Errorf("slots are left: %v", d.slots.nodes)
		}
	})
}

func TestAllowed(t *testing.T) {
	for address, want := range map[string]bool{"10.0.0.1:80": true, "93.184.216.34:443": true, "[2001:db8::1]:80": true,
		"127.0.0.1:80": false, "[::1]:80": false, "[::ffff:127.0.0.1]:80": false, "169.254.169.254:80": false, "[fe80::1]:80": false,
		"0.0.0.0:80": false, "[::]:80": false, "224.0.0.1:80": false, "name:80": false} {
		if got := allowed(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// TestConnectionsServeHTTP checks that a connection outlives the context that it was dialed with, as http.Transport relies on.
func TestConnectionsServeHTTP(t *testing.T) {
	d := New(Config{Objects: controltest.New(t, pod("a", "web", "n1", "10.42.0.2")), Nodes: httpPods{}})
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return d.DialPod(ctx, "a", "web", 80)
	}}}
	defer client.CloseIdleConnections()
	for range 2 {
		resp, err := client.Get("http://pod/")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != "hello" {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// httpPods are pods that answer two requests of HTTP.
type httpPods struct{}

func (httpPods) OpenStream(ctx context.Context, _ string, _ wire.StreamRequest) (wire.Stream, error) {
	hub, end := wiretest.Streams()
	go func() {
		ctx := context.WithoutCancel(ctx)
		_ = end.CloseSend(ctx, wire.ChannelStderr)
		for range 2 {
			if _, _, err := end.Recv(ctx); err != nil {
				return
			}
			_ = end.Send(ctx, wire.ChannelStdout, []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
		}
	}()
	return hub, nil
}
