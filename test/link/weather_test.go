package link_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/identity"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// hostile is a device that speaks MQTT but no Petrel.
type hostile struct {
	id   *identity.Identity
	node string
	h    *hub
}

func newHostile(t *testing.T, h *hub) *hostile {
	id, err := identity.Load(t.TempDir())
	must(t, err)
	return &hostile{id, wire.NodeID(id.Fingerprint()), h}
}

func (x *hostile) dial(t *testing.T, edit func(*paho.ClientOptions)) (paho.Client, error) {
	t.Helper()
	cert, err := wire.DeviceCertificate(x.id.TLS, x.id.Static.Public)
	must(t, err)
	cfg := wire.PinnedTLS(cert, x.h.pin)
	o := paho.NewClientOptions().AddBroker("ssl://" + x.h.addr).SetTLSConfig(cfg).SetClientID(x.node).SetProtocolVersion(4).
		SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(10 * time.Second).SetKeepAlive(time.Minute)
	if edit != nil {
		edit(o)
	}
	c := paho.NewClient(o)
	tok := c.Connect()
	tok.Wait()
	if tok.Error() == nil {
		t.Cleanup(func() { c.Disconnect(0) })
	}
	return c, tok.Error()
}

// What a node may not do on the embedded broker.
func TestHostileNode(t *testing.T) {
	h := newHub(t, "").start()
	a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
	h.waitConnected("n1")
	victim, cluster := wire.NodeID(a.link.Status().Device), h.keys.ClusterID
	x := newHostile(t, h)
	for _, c := range []struct {
		name string
		edit func(*paho.ClientOptions)
	}{
		{"another's client id", func(o *paho.ClientOptions) { o.SetClientID(victim) }},
		{"another's client id with a suffix", func(o *paho.ClientOptions) { o.SetClientID(victim + ".1") }},
		{"no keepalive", func(o *paho.ClientOptions) { o.SetKeepAlive(0) }},
		{"a long keepalive", func(o *paho.ClientOptions) { o.SetKeepAlive(time.Hour) }},
		{"a lasting session", func(o *paho.ClientOptions) { o.SetCleanSession(false) }},
		{"another's will", func(o *paho.ClientOptions) { o.SetBinaryWill(wire.LiveTopic(cluster, victim), []byte("x"), 0, false) }},
		{"a retained will", func(o *paho.ClientOptions) { o.SetBinaryWill(wire.LiveTopic(cluster, x.node), []byte("x"), 0, true) }},
	} {
		// Some are refused, some thrown out: the library answers a retained will with success, and hangs up.
		if cl, err := x.dial(t, c.edit); err == nil {
			tok := cl.Subscribe(wire.DownTopic(cluster, x.node), 0, nil)
			if tok.WaitTimeout(2*time.Second) && tok.Error() == nil {
				t.Errorf("served with %s", c.name)
			}
		}
	}

	heard := make(chan string, 16)
	c, err := x.dial(t, func(o *paho.ClientOptions) {
		o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { heard <- m.Topic() })
	})
	must(t, err)
	for _, topic := range []string{
		"#", "+/+/+/down", "petrel/#", "$SYS/#", wire.DownTopic(cluster, victim), wire.DownTopic(cluster, "+"),
		wire.StreamDown(cluster, victim, "+"), wire.UpTopic(cluster, x.node), wire.LiveTopic(cluster, victim), "$share/g/" + wire.DownTopic(cluster, victim),
		wire.StreamDown(cluster, x.node, "one-of-a-million"),
	} {
		tok := c.Subscribe(topic, 0, nil).(*paho.SubscribeToken)
		tok.Wait()
		for _, code := range tok.Result() {
			if code != 0x80 {
				t.Errorf("subscribed to %s", topic)
			}
		}
	}
	// Publishing elsewhere: at QoS 0 it is dropped. The victim must not notice, nor lose its session.
	for _, topic := range []string{wire.UpTopic(cluster, victim), wire.DownTopic(cluster, victim), wire.LiveTopic(cluster, victim), "other"} {
		c.Publish(topic, 0, true, wire.NudgeFrame(wire.Tag{})).Wait()
	}
	h.client.Put(pod("web", "n1"))
	eventually(t, "the victim gets its pod", func() bool { return a.has(wire.KindPod, "web") != nil })
	if !h.connected("n1") {
		t.Error("the victim lost its session")
	}
	select {
	case topic := <-heard:
		t.Errorf("heard a frame on %s", topic)
	default:
	}
	// A frame of nonsense on its own topic disturbs nobody; a packet beyond the limit ends the connection.
	c.Publish(wire.UpTopic(cluster, x.node), 0, false, make([]byte, 90<<10)).Wait()
	c.Publish(wire.UpTopic(cluster, x.node), 0, false, make([]byte, 1<<20)).Wait()
	eventually(t, "the flood is cut off", func() bool { return !c.IsConnected() })
}

// TestNoCertificate checks that a client without a device certificate, or one that never sends anything, gets nowhere.
func TestNoCertificate(t *testing.T) {
	h := newHub(t, "").start()
	c, err := tls.Dial("tcp", h.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.ALPN}, MinVersion: tls.VersionTLS13})
	if err == nil {
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err = c.Read(make([]byte, 1)); err == nil {
			t.Error("the hub spoke to a client without a certificate")
		} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Error("the hub keeps a client without a certificate")
		}
	}
}

// A node whose connection takes no more bytes does not hold up another one.
func TestBlackHole(t *testing.T) {
	h := newHub(t, "").start()
	tok := h.token(jointoken.Options{})
	a := newAgent(t, "n1", tok).start()
	h.waitConnected("n1")
	// n2 joins, and goes dark with its connection open: a hostile stand-in with its key that never reads.
	b := newAgent(t, "n2", tok).start()
	h.waitConnected("n2")
	b.kill()
	id, err := identity.Load(b.dir)
	must(t, err)
	x := &hostile{id, wire.NodeID(id.Fingerprint()), h}
	stuck := make(chan struct{})
	defer close(stuck)
	c, err := x.dial(t, func(o *paho.ClientOptions) {
		o.SetDefaultPublishHandler(func(paho.Client, paho.Message) { <-stuck })
	})
	must(t, err)
	c.Subscribe(wire.DownTopic(h.keys.ClusterID, x.node), 0, nil).Wait()
	c.Subscribe(wire.StreamDown(h.keys.ClusterID, x.node, "+"), 0, nil).Wait()
	// Far more than any buffer holds goes to n2, from the goroutine that also serves n1.
	frame := make([]byte, 64<<10)
	for i := range 2000 {
		h.publish(wire.DownTopic(h.keys.ClusterID, x.node), frame)
		if i%500 == 0 {
			name := fmt.Sprintf("web%d", i)
			h.client.Put(pod(name, "n1"))
			eventually(t, "n1 is served", func() bool { return a.has(wire.KindPod, name) != nil })
		}
	}
}

// The hub comes back from an old backup: desired state follows the hub, and what the node had reported since is sent again.
func TestRestoredHub(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
		h.waitConnected("n1")
		p := h.client.Put(pod("old", "n1")).(*corev1.Pod)
		eventually(t, "the pod arrives", func() bool { return a.has(wire.KindPod, "old") != nil })
		backup := newHub(t, url, h.client.Stored(kube.Node, "")[0], h.client.Stored(kube.Pod, "default")[0]).client
		a.podStatus(p, corev1.PodRunning)
		h.client.Put(pod("young", "n1"))
		eventually(t, "all in step", func() bool {
			return a.has(wire.KindPod, "young") != nil && h.pod("old").Status.Phase == corev1.PodRunning
		})
		h.kill()
		h.client = backup
		h.start()
		h.waitConnected("n1")
		eventually(t, "the set is the backup's", func() bool { return a.has(wire.KindPod, "young") == nil && a.has(wire.KindPod, "old") != nil })
		eventually(t, "the status is told again", func() bool { return h.pod("old").Status.Phase == corev1.PodRunning })
	})
}

// Reports: only of own pods, an end finishes a deletion, a pod lost without one fails, the node's own status comes with
// every session, events become Events once.
func TestReports(t *testing.T) {
	h := newHub(t, "").start()
	a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
	h.waitConnected("n1")
	mine := h.client.Put(pod("mine", "n1")).(*corev1.Pod)
	other := h.client.Put(pod("other", "n2")).(*corev1.Pod)
	lost := h.client.Put(pod("lost", "n1")).(*corev1.Pod)
	stop := metav1.NewTime(time.Now())
	ending := h.client.Put(pod("ending", "n1", func(p *corev1.Pod) { p.DeletionTimestamp = &stop })).(*corev1.Pod)

	a.podStatus(other, corev1.PodFailed)
	a.podGone(other)
	a.podGone(lost)
	a.podGone(ending)
	event := func(name, uid string, count int32) {
		a.report(wire.KindEvent, "e-"+uid, "default", "ev-"+uid, corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: "default", Name: "ev-" + uid},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: name, UID: "uid-" + mine.UID[len("uid-"):]},
			Reason:         "Pulled", Count: count,
		})
	}
	event("mine", "1", 1)
	event("other", "2", 1)
	cond := corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}
	b, err := json.Marshal(cond)
	must(t, err)
	a.report(wire.KindNodeStatus, "node", "", "n1", wire.NodeReport{Labels: map[string]string{"kubernetes.io/arch": "arm64", "x.node-restriction.kubernetes.io/a": "b"}, Status: b})
	a.podStatus(mine, corev1.PodRunning)

	node := func() *corev1.Node { return h.client.Stored(kube.Node, "")[0].(*corev1.Node) }
	ready := func() corev1.ConditionStatus {
		for _, c := range node().Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status
			}
		}
		return ""
	}
	eventually(t, "all is taken", func() bool {
		return h.pod("mine").Status.Phase == corev1.PodRunning && h.pod("ending") == nil &&
			h.pod("lost").Status.Phase == corev1.PodFailed && ready() == corev1.ConditionTrue && len(h.client.Stored(kube.Event, "default")) > 0
	})
	if h.pod("other") == nil || h.pod("other").Status.Phase != "" {
		t.Error("a node spoke for another's pod")
	}
	if l := node().Labels; l["kubernetes.io/arch"] != "arm64" || l["x.node-restriction.kubernetes.io/a"] != "" {
		t.Errorf("labels %v", l)
	}
	event("mine", "1", 5)
	eventually(t, "the event counts on", func() bool { return h.client.Stored(kube.Event, "default")[0].(*corev1.Event).Count == 5 })
	eventually(t, "what was refused is an event of the Node", func() bool {
		for _, o := range h.client.Stored(kube.Event, "default") {
			if e := o.(*corev1.Event); e.Reason == "ReportRefused" && e.InvolvedObject.Name == "n1" {
				return true
			}
		}
		return false
	})
	if n := len(h.client.Stored(kube.Event, "default")); n != 2 {
		t.Errorf("%d events, want the pod's and the Node's", n)
	}

	a.kill()
	eventually(t, "n1 is dark", func() bool { return !h.connected("n1") })
	dark := node().DeepCopy()
	dark.Status.Conditions[0].Status = corev1.ConditionUnknown // as the node controller would
	h.client.Put(dark)
	a.start()
	eventually(t, "Ready again with the next session", func() bool { return ready() == corev1.ConditionTrue })
}

// ServiceAccount tokens: one for the pod, renewed at 80 % of its life, never absent, and not made again because the hub
// has restarted.
func TestServiceAccountTokens(t *testing.T) {
	sa := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}
	h := newHub(t, "", sa)
	h.tokens.life = 30 * time.Hour // the lifetime asked for is 24 h: due after 25.2 h
	h.start()
	a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
	h.waitConnected("n1")
	h.client.Put(pod("web", "n1", withToken))
	token := func() string {
		o := a.has(wire.KindToken, "web")
		if o == nil {
			return ""
		}
		var tok wire.Token
		must(t, json.Unmarshal(o.Data, &tok))
		return tok.Token
	}
	eventually(t, "the token arrives", func() bool { return token() == "token 1 of default for web" })
	h.kill()
	h.start()
	h.waitConnected("n1")
	h.client.Put(pod("web2", "n1", withToken))
	eventually(t, "the next pod's token arrives", func() bool { return a.has(wire.KindToken, "web2") != nil })
	if token() != "token 1 of default for web" || h.tokens.count() != 2 {
		t.Errorf("token %q, %d made", token(), h.tokens.count())
	}
	// A hub that comes back when the token is due makes a new one; the old stays until then.
	h.kill()
	h.client.Remove(kube.Pod, "default", "web2")
	h.tokens.life = time.Second
	a.kill()
	h.start()
	h.client.Put(pod("web3", "n1", withToken))
	a.start()
	h.waitConnected("n1")
	eventually(t, "a short token is renewed again and again", func() bool {
		if token() == "" {
			t.Fatal("a token was taken away")
		}
		return h.tokens.count() > 4
	})
	h.client.Remove(kube.Pod, "default", "web")
	eventually(t, "the token goes with its pod", func() bool { return token() == "" })
}

// Bytes of an idle session on the hub's socket, TLS included: what a minute costs, by the keepalive of 60 s. TCP/IP adds
// three packets of 52 bytes.
func TestIdleTraffic(t *testing.T) {
	h := newHub(t, "")
	var n atomic.Int64
	h.bytesIn = func(b int) { n.Add(int64(b)) }
	h.start()
	a := newAgent(t, "n1", h.token(jointoken.Options{}))
	a.ka = 2 * time.Second
	a.start()
	h.waitConnected("n1")
	for i := range 10 {
		p := h.client.Put(pod(fmt.Sprint("p", i), "n1")).(*corev1.Pod)
		a.podStatus(p, corev1.PodRunning)
	}
	eventually(t, "all in step", func() bool {
		p := h.pod("p9")
		return p != nil && p.Status.Phase == corev1.PodRunning && a.has(wire.KindPod, "p9") != nil
	})
	// On a busy machine such a short keepalive may be missed, and the connection be made again: then measure again.
	for try := 0; ; try++ {
		time.Sleep(time.Second) // let the last acknowledgements pass
		start := n.Load()
		time.Sleep(4 * time.Second) // two keepalives: what repeats is what counts, not how fast
		perPing := float64(n.Load()-start) / 2
		month := (perPing + 156) * 60 * 24 * 30
		t.Logf("idle: a keepalive costs %.0f bytes with TLS + 156 of TCP/IP; a month at 60 s: %.1f MB", perPing, month/1e6)
		if month <= 10e6 {
			return
		}
		if try == 4 {
			t.Fatalf("%.1f MB a month", month/1e6)
		}
	}
}
