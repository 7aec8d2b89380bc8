package link_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/link"
	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/wire"
)

func (a *agent) complete() bool {
	select {
	case <-a.link.Completed():
		return true
	default:
		return false
	}
}

// loseCache is what a bad card does to a device between two starts.
func (a *agent) loseCache() {
	a.t.Helper()
	must(a.t, os.RemoveAll(link.CacheDir(a.dir)))
}

// A device that has lost its cache knows that its set is complete when the hub says so and no earlier: not while a large
// object is on its way before the pods, nor while a pod waits on the hub for its token. What runs meanwhile is not known to
// be unwanted, so it goes on.
func TestCompleteAfterLostCache(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		h := newHub(t, url).start()
		a := newAgent(t, "n1", h.token(jointoken.Options{})).start()
		h.waitConnected("n1")
		eventually(t, "an empty set is complete too", a.complete)
		h.client.Put(configMap("large", randomHex(600<<10)))
		h.client.Put(&corev1.ServiceAccount{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"},
		})
		h.client.Put(pod("web", "n1", withConfigMap("large"), withToken))
		eventually(t, "the pod arrives", func() bool { return a.has(wire.KindPod, "web") != nil })
		a.kill()
		eventually(t, "n1 is dark", func() bool { return !h.connected("n1") })
		h.kill()
		a.loseCache()
		release := h.tokens.block()
		h.start()
		a.start()
		eventually(t, "what the pod refers to arrives", func() bool { return a.has(wire.KindConfigMap, "large") != nil })
		if a.complete() && a.has(wire.KindPod, "web") == nil {
			t.Fatal("complete although the pod waits for its token on the hub")
		}
		release()
		eventually(t, "the set is complete", a.complete)
		if a.has(wire.KindPod, "web") == nil {
			t.Error("complete without the pod")
		}
	})
}

// A disk that takes nothing cannot hold the whole set, however long the session lasts.
func TestNotCompleteOnAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, to mount a small disk")
		}
		t.Skip("needs root, to mount a small disk")
	}
	h := newHub(t, "").start()
	a := newAgent(t, "n1", h.token(jointoken.Options{}))
	must(t, syscall.Mount("tmpfs", a.dir, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { a.kill(); _ = syscall.Unmount(a.dir, syscall.MNT_DETACH) })
	a.start()
	h.waitConnected("n1")
	h.client.Put(pod("old", "n1"))
	eventually(t, "the pod arrives", func() bool { return a.has(wire.KindPod, "old") != nil })
	a.kill()
	a.loseCache()
	must(t, os.MkdirAll(link.CacheDir(a.dir), 0o700))
	for _, name := range []string{"desired.log", "reports.log"} { // or the cache could not be opened
		must(t, os.WriteFile(filepath.Join(link.CacheDir(a.dir), name), nil, 0o600))
	}
	filler := filepath.Join(a.dir, "filler")
	f, err := os.Create(filler)
	must(t, err)
	for err = nil; err == nil; {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	a.token = ""
	a.start()
	eventually(t, "the node says that its disk is full", func() bool {
		s := a.link.Status()
		return s.Connected && strings.Contains(s.Problem, "no space left")
	})
	if a.complete() {
		t.Error("complete although nothing is stored")
	}
	must(t, os.Remove(filler))
	eventually(t, "the set is complete", a.complete)
	if a.has(wire.KindPod, "old") == nil {
		t.Error("complete without the pod")
	}
}
