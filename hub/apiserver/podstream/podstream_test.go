package podstream

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/wire"
)

// silent is a node whose processes say nothing, for as long as the stream is open.
type silent struct {
	wire.Stream
	opened chan wire.StreamRequest // capacity 1
}

func (n *silent) OpenStream(_ context.Context, node string, req wire.StreamRequest) (wire.Stream, error) {
	if err := n.Absent(node); err != nil {
		return nil, err
	}
	n.opened <- req
	return n, nil
}

func (*silent) Absent(node string) error {
	if node == "dark" {
		return apierrors.NewServiceUnavailable("node dark has not been heard of")
	}
	return nil
}

func (*silent) Recv(ctx context.Context) (wire.Channel, []byte, error) {
	<-ctx.Done()
	return 0, nil, ctx.Err()
}

func (*silent) Close(wire.StreamEnd) error { return nil }

// status is what an API makes of an error that is a Status already.
func status(err error) *metav1.Status {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}
	}
	s := known.Status()
	return &s
}

// serve answers every request as one of a stream of a pod on that node, in a context that end ends with a cause.
func serve(t *testing.T, n *silent, sub, node string) (url string, end context.CancelCauseFunc) {
	t.Helper()
	ctx, end := context.WithCancelCause(context.Background())
	s := New(Config{Streams: n, Status: status, Log: slog.New(slog.DiscardHandler)})
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u"},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "app"}}},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Serve(Request{W: w, R: r.WithContext(ctx), Pod: pod, Subresource: sub, Fail: func(err error) {
			st := status(err)
			http.Error(w, st.Message, int(st.Code))
		}})
	}))
	t.Cleanup(func() { end(nil); srv.Close() })
	return srv.URL, end
}

// TestClientLearnsWhyItsCommandEnded stops the hub below an exec: the client gets the cause as its Status.
func TestClientLearnsWhyItsCommandEnded(t *testing.T) {
	n := &silent{opened: make(chan wire.StreamRequest, 1)}
	url, end := serve(t, n, "exec", "pi-1")
	dialer := websocket.Dialer{Subprotocols: []string{"v4.channel.k8s.io"}}
	conn, _, err := dialer.Dial("ws"+strings.TrimPrefix(url, "http")+"/?command=sh&stdout=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if req := <-n.opened; req.Kind != wire.StreamExec || req.PodUID != "u" || req.Container != "app" || !req.Stdout || req.Stdin {
		t.Errorf("the node was asked for %+v", req)
	}
	end(errors.New("the hub is stopping"))
	_, msg, err := conn.ReadMessage()
	if err != nil || msg[0] != channelError {
		t.Fatalf("%v: %q", err, msg)
	}
	var st metav1.Status
	if err := json.Unmarshal(msg[1:], &st); err != nil || st.Code != http.StatusServiceUnavailable || st.Message != "the hub is stopping" {
		t.Errorf("the client got %s, %v", msg[1:], err)
	}
}

// TestRefusalsBeforeTheUpgradeAreHTTP checks that until the connection is upgraded, an error is an ordinary answer.
func TestRefusalsBeforeTheUpgradeAreHTTP(t *testing.T) {
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
	for name, test := range map[string]struct {
		sub, node, method, query string
		header                   []string
		code                     int
	}{
		"a dark node":         {"exec", "dark", "GET", "command=sh&stdout=true", upgrade, 503},
		"a dark node's port":  {"portforward", "dark", "GET", "", upgrade, 503},
		"no upgrade":          {"exec", "pi-1", "POST", "command=sh&stdout=true", nil, 400},
		"no command":          {"exec", "pi-1", "GET", "stdout=true", upgrade, 400},
		"no node":             {"attach", "", "GET", "stdout=true", upgrade, 400},
		"an unknown protocol": {"exec", "pi-1", "GET", "command=sh&stdout=true", append([]string{"Sec-WebSocket-Protocol", "v9"}, upgrade...), 403},
		"a log by POST":       {"log", "pi-1", "POST", "", nil, 405},
		"a log of nobody":     {"log", "pi-1", "GET", "container=other", nil, 400},
		"not served":          {"proxy", "pi-1", "GET", "", nil, 500},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := serve(t, &silent{opened: make(chan wire.StreamRequest, 1)}, test.sub, test.node)
			req, err := http.NewRequest(test.method, url+"/?"+test.query, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i+1 < len(test.header); i += 2 {
				req.Header.Set(test.header[i], test.header[i+1])
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != test.code {
				t.Errorf("answered %d, want %d", resp.StatusCode, test.code)
			}
		})
	}
}
