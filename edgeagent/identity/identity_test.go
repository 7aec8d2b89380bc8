package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/internal/jointoken"
	"petrel.dev/petrel/internal/wire"
)

func token(t *testing.T, cluster string) string {
	t.Helper()
	tok, _, err := jointoken.Mint(jointoken.Cluster{ID: cluster, Addresses: []string{"a:1", "b:2", "c:3"}}, jointoken.Options{}, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return tok.String()
}

func TestIdentityStays(t *testing.T) {
	dir := t.TempDir()
	a, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Load(dir)
	if err != nil || a.Fingerprint() != b.Fingerprint() {
		t.Errorf("another device after a restart: %v", err)
	}
	if len(wire.NodeID(a.Fingerprint())) != wire.NodeIDLen {
		t.Errorf("fingerprint %q", a.Fingerprint())
	}
	fi, err := os.Stat(filepath.Join(dir, "identity"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", fi.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "identity"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "join again") {
		t.Errorf("damaged identity: %v", err)
	}
}

func TestHubMemory(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadHub(dir, ""); !errors.Is(err, ErrNoHub) {
		t.Fatalf("no hub, no token: %v", err)
	}
	h, err := LoadHub(dir, token(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	if id, secret := h.Token(); id == "" || secret == "" {
		t.Error("no token to join with")
	}
	var last uint64
	next := func() {
		t.Helper()
		e, err := h.NextEpoch()
		if err != nil || e <= last {
			t.Fatalf("epoch %d after %d, %v", e, last, err)
		}
		last = e
	}
	for range 3 * epochBlock / 2 {
		next()
	}
	if err := h.Welcomed("n1", "h1", []string{"b:2", "c:3"}); err != nil {
		t.Fatal(err)
	}
	if h, err = LoadHub(dir, ""); err != nil { // a power cut
		t.Fatal(err)
	}
	next()
	h.PassEpoch(last + 10_000)
	last += 10_000
	next()
	if h, err = LoadHub(dir, ""); err != nil {
		t.Fatal(err)
	}
	next()
	if id, secret := h.Token(); secret != "" || h.Node() != "n1" || h.History() != "h1" {
		t.Errorf("after a welcome: token %q %q, node %q, history %q", id, secret, h.Node(), h.History())
	}
	// What the token said stays, behind what the hub says: it may be the only address that leads there from here.
	first := h.Turn()
	if first[0] != "b:2" || h.Turn()[0] != "c:3" || h.Turn()[0] != first[2] || len(first) != 3 {
		t.Errorf("addresses do not take turns: %v", first)
	}
	h.Worked("c:3")
	if a := h.Turn(); a[0] != "c:3" {
		t.Errorf("not the one that worked first: %v", a)
	}
	if _, err := LoadHub(dir, token(t, "two")); err == nil || !strings.Contains(err.Error(), "belongs to cluster one") {
		t.Errorf("token of another cluster: %v", err)
	}
	if _, err := LoadHub(dir, "petrel1.x"); !errors.Is(err, jointoken.ErrTypo) {
		t.Errorf("mistyped token: %v", err)
	}
	if err := h.Removed(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hub"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadHub(dir, ""); err == nil || !strings.Contains(err.Error(), "new join token") {
		t.Errorf("damaged memory: %v", err)
	}
	if _, err := LoadHub(dir, token(t, "one")); err != nil {
		t.Errorf("damaged memory and a token: %v", err)
	}
}

// A disk that takes nothing keeps no device from its hub: epochs go on, and what is not remembered is written later.
func TestFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	h, err := LoadHub(dir, token(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory was: nothing can be written
		t.Fatal(err)
	}
	for want := range uint64(3) {
		if e, err := h.NextEpoch(); e != want+1 || err == nil {
			t.Errorf("epoch %d, %v", e, err)
		}
	}
	if h.Welcomed("n1", "h1", []string{"b:2"}) == nil || h.Node() != "n1" {
		t.Errorf("node %q", h.Node())
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if err := h.Welcomed("n1", "h1", []string{"b:2"}); err != nil {
		t.Fatal(err)
	}
	if h, err = LoadHub(dir, ""); err != nil || h.Node() != "n1" {
		t.Errorf("node %q after a restart, %v", h.Node(), err)
	}
}

// TestNeedsToken goes through the life of a device: when a token is of use to it, and when it takes none.
func TestNeedsToken(t *testing.T) {
	dir, one, two := t.TempDir(), token(t, "c"), token(t, "c")
	expect := func(what, token string, want bool) {
		t.Helper()
		if got, err := NeedsToken(dir, token); got != want || err != nil {
			t.Errorf("%s: needed %v, want %v, error %v", what, got, want, err)
		}
	}
	if KnowsHub(dir) {
		t.Error("a hub is known before the first token")
	}
	expect("a fresh device", one, true)
	h, err := LoadHub(dir, one)
	if err != nil || !KnowsHub(dir) {
		t.Fatalf("the hub of a token is not remembered: %v", err)
	}
	expect("not welcomed yet", one, true)
	if err := h.Welcomed("n", "h", nil); err != nil {
		t.Fatal(err)
	}
	expect("joined", one, false)
	expect("joined, another token of the same hub", two, true)
	if _, err := NeedsToken(dir, token(t, "other")); err == nil || !strings.Contains(err.Error(), "belongs to cluster c") {
		t.Errorf("another hub's token: %v", err)
	}
	if _, err := NeedsToken(dir, "petrel1.x"); !errors.Is(err, jointoken.ErrTypo) {
		t.Errorf("mistyped token: %v", err)
	}
	for what, refuse := range map[string]func(*Hub) error{"a hub that does not know it": (*Hub).Refused, "its Node was deleted": (*Hub).Removed} {
		if err := refuse(h); err != nil {
			t.Fatal(err)
		}
		expect(what, one, true)
		if h, err = LoadHub(dir, one); err != nil { // started again with it
			t.Fatal(err)
		}
		expect(what+", started again", one, true)
		if err := h.Welcomed("n", "h", nil); err != nil {
			t.Fatal(err)
		}
		expect(what+", welcomed again", one, false)
	}
	for what, text := range map[string]string{"damaged": "{", "a newer version": `{"version":2,"ID":"c","node":"n"}`} {
		if err := os.WriteFile(filepath.Join(dir, "hub"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		expect(what, token(t, "other"), true) // as LoadHub takes it
	}
}
