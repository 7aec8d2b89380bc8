package link_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/identity"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
)

// TestFleetToken has a fleet join with one token and names of its pattern: a name of another form is refused, and a second board of
// one name, which learns which machine has it. When the token is deleted, those that have joined stay, and nobody else joins.
func TestFleetToken(t *testing.T) {
	h := newHub(t, "").start()
	text := h.token(jointoken.Options{Names: "pi-{serial}", TTL: time.Hour})
	token, err := jointoken.Parse(text)
	must(t, err)
	for k := range 5 {
		newAgent(t, fmt.Sprintf("pi-%d", k), text).start()
	}
	for k := range 5 {
		name := fmt.Sprintf("pi-%d", k)
		h.waitConnected(name)
		if n := h.node(name); n.Annotations[kube.JoinTokenAnnotation] != token.TokenID {
			t.Errorf("%s does not name its token: %v", name, n.Annotations)
		}
	}
	n := h.node("pi-3").DeepCopy()
	n.Labels[kube.BoardLabel], n.Labels[kube.SerialLabel] = "raspberry-pi-5", "3"
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "pi-3"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.3"}}
	h.client.Put(n)

	stranger := newAgent(t, "roof", text).start()
	eventually(t, "a name of another form is refused", stranger.problem(`named by the pattern pi-{serial}, which "roof" does not have`))
	twin := newAgent(t, "pi-3", text).start()
	eventually(t, "a second board of one name is refused", twin.problem("raspberry-pi-5, serial number 3, at 192.0.2.3, connected now"))
	if p := twin.link.Status().Problem; !strings.Contains(p, "pi-{serial} of its token gives both machines this name") || !strings.Contains(p, "--replace pi-3") {
		t.Errorf("the ways out are not named: %s", p)
	}

	h.client.Remove(kube.Secret, jointoken.SecretNamespace, jointoken.SecretName(token.TokenID))
	late := newAgent(t, "pi-9", text).start()
	eventually(t, "a deleted token is none", late.problem("no such join token"))
	if !h.connected("pi-0") {
		t.Error("a node left with its token")
	}
}

// TestTokenIsNotNeededOnceJoined cuts the power of a device when its token is taken from where its operator had put it, and before: with
// the token it joins, and without it is the same node. At the moment of Joined nothing but the disk knows that.
func TestTokenIsNotNeededOnceJoined(t *testing.T) {
	h := newHub(t, "").start()
	text := h.token(jointoken.Options{Uses: 1})
	a := newAgent(t, "n1", text)
	disk, joined := t.TempDir(), make(chan error, 8)
	a.joined = func() {
		needed, err := identity.NeedsToken(a.dir, text)
		if err == nil && needed {
			err = errors.New("called while the token is needed")
		}
		joined <- errors.Join(err, os.CopyFS(disk, os.DirFS(a.dir))) // what a power cut would leave
	}
	a.start()
	must(t, <-joined)
	h.waitConnected("n1")
	a.kill()

	a.dir, a.joined = disk, func() { joined <- nil }
	for _, token := range []string{text, "", ""} { // the settings had it still; then they have not
		a.token = token
		a.start()
		must(t, <-joined)
		h.waitConnected("n1")
		a.kill()
	}
	if nodes := h.client.Stored(kube.Node, ""); len(nodes) != 1 {
		t.Errorf("%d nodes", len(nodes))
	}
}

// node returns a Node as it is stored.
func (h *hub) node(name string) *corev1.Node {
	h.t.Helper()
	for _, o := range h.client.Stored(kube.Node, "") {
		if o.GetName() == name {
			return o.(*corev1.Node)
		}
	}
	h.t.Fatalf("no node %s", name)
	return nil
}
