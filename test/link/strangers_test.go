package link_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// A device without a good token that wants the name of a live node causes no write and no word to that node; one with a
// good token causes one Event an hour.
func TestNothingIsWrittenForAStranger(t *testing.T) {
	h := newHub(t, "").start()
	good := h.token(jointoken.Options{})
	newAgent(t, "n1", good).start()
	h.waitConnected("n1")
	bad, err := jointoken.Parse(good)
	must(t, err)
	bad.Secret = "not it"
	for quiet := 0; quiet < 10; quiet++ { // the join's own frames have come, on a busy machine too
		time.Sleep(100 * time.Millisecond)
		if len(h.client.Writes()) > 0 {
			quiet = 0
		}
	}
	for k := range 5 {
		a := newAgent(t, "n1", bad.String()).start()
		eventually(t, fmt.Sprintf("stranger %d is refused", k), a.problem("no such join token"))
		a.kill()
	}
	if w := h.client.Writes(); len(w) > 0 {
		t.Errorf("strangers had written: %q", w)
	}
	for k := range 3 {
		a := newAgent(t, "n1", good).start()
		eventually(t, fmt.Sprintf("device %d is refused", k), a.problem("belongs to another device"))
		a.kill()
	}
	events := 0
	eventually(t, "the refusal is an Event", func() bool {
		events = 0
		for _, o := range h.client.Stored(kube.Event, "default") {
			if o.(*corev1.Event).Reason == "NameTaken" {
				events++
			}
		}
		return events > 0
	})
	if events != 1 {
		t.Errorf("%d Events for three refusals", events)
	}
}

// A panic in a device's session, or in one stream, ends that, and the device comes again.
func TestPanicInTheLinkIsContained(t *testing.T) {
	h := newHub(t, "").start()
	a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
	h.waitConnected("n1")
	hit := make(chan struct{}, 1)
	for _, site := range []string{"link/receive", "broker/connection", "link/session"} {
		remove := contain.Inject(func(s, _ string) {
			if s == site {
				select {
				case hit <- struct{}{}:
				default:
				}
				panic("poison in " + site)
			}
		})
		h.client.Put(configMap("x", site))
		h.client.Put(pod("p-"+site[:4]+site[len(site)-3:], "n1"))
		if site != "link/receive" {
			a.kill()
			a.start()
		}
		<-hit
		remove()
		eventually(t, "the link is back after a panic in "+site, func() bool { return a.link.Status().Connected && h.connected("n1") })
		eventually(t, "the pod arrives", func() bool { return a.has(wire.KindPod, "p-"+site[:4]+site[len(site)-3:]) != nil })
	}
}
