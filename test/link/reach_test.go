package link_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/podnet"
	"petrel.dev/petrel/edgeagent/podrun/stream"
	"petrel.dev/petrel/hub/reach"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/wire"
)

// serveAt answers every request with name and the request's body, at one address only.
func serveAt(t *testing.T, address, name string) (port int32) {
	l, err := net.Listen("tcp", address)
	must(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, name)
		_, _ = io.Copy(w, r.Body)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return int32(l.Addr().(*net.TCPAddr).Port)
}

// TestConnectsThroughTheLink reaches a pod's own address from the hub, many requests at a time and with a large body, while what
// listens on loopback alone stays out of reach; a dark node is an error that says since when.
func TestConnectsThroughTheLink(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		ctx := t.Context()
		port := serveAt(t, "127.0.0.2:0", "pod ")
		private := serveAt(t, "127.0.0.1:0", "loopback ")
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "web", UID: "u1"}, Spec: corev1.PodSpec{NodeName: "n1"}}
		h := newHub(t, url, pod).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{}))
		a.serve = stream.New(stream.Config{Dial: podnet.Dial, Now: time.Now, Log: logger(t, "stream"), Pod: func(uid string) (stream.Pod, bool) {
			return stream.Pod{UID: uid, Object: pod, Status: &pod.Status, Place: &stream.Place{IPs: []string{"127.0.0.2"}}}, uid == "u1"
		}}).Serve
		a.start()
		h.waitConnected("n1")

		d := reach.New(reach.Config{Objects: h.client, Nodes: h.d})
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(address)
			n, err := strconv.Atoi(port)
			must(t, err)
			return d.DialPod(ctx, "a", "web", int32(n))
		}}}
		body := bytes.Repeat([]byte("x"), 300<<10)
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() {
				resp, err := client.Post("http://pod:"+strconv.Itoa(int(port)), "", bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "pod "+string(body) {
					t.Errorf("%d bytes came back, %v", len(b), err)
				}
			})
		}
		wg.Wait()
		if _, err := d.DialPod(ctx, "a", "web", private); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("what listens on loopback: %v", err)
		}
		s, err := h.d.OpenStream(ctx, "n1", wire.StreamRequest{Kind: wire.StreamPortForward, PodUID: "u1", Pod: "web", Port: private})
		must(t, err)
		must(t, s.Send(ctx, wire.ChannelStdin, []byte("GET / HTTP/1.0\r\n\r\n")))
		if _, b, err := s.Recv(ctx); err != nil || !bytes.HasSuffix(b, []byte("loopback ")) {
			t.Errorf("port-forward to loopback: %q, %v", b, err)
		}

		a.kill()
		eventually(t, "n1 counts as dark", func() bool { return !h.connected("n1") })
		_, err = d.DialPod(ctx, "a", "web", port)
		if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), time.Now().UTC().Format("2006-01-02")) {
			t.Errorf("a pod of a dark node: %v", err)
		}
	})
}
