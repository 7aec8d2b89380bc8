package satoken

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/auth/keyfile"
	"petrel.dev/petrel/internal/kube"
)

// objects are what exists, by KIND/NAMESPACE/NAME.
type objects map[string]kube.Object

func (o objects) Get(gvk kube.GVK, namespace, name string) (kube.Object, bool) {
	v, ok := o[gvk.Kind+"/"+namespace+"/"+name]
	return v, ok
}

func (o objects) CatchUp(context.Context) error { return nil }

func meta(namespace, name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(uid)}
}

var account = &corev1.ServiceAccount{ObjectMeta: meta("shop", "till", "sa-1")}

func world() objects {
	return objects{
		"ServiceAccount/shop/till": account,
		"Secret/shop/s":            &corev1.Secret{ObjectMeta: meta("shop", "s", "s-1")},
		"Node//pi-1":               &corev1.Node{ObjectMeta: meta("", "pi-1", "n-1")},
	}
}

// opened are keys with a clock that the test turns.
func opened(t testing.TB) (k *Keys, dir string, now *time.Time) {
	t.Helper()
	dir, at := t.TempDir(), time.Now().Truncate(time.Second)
	k, err := Open(dir, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	return k, dir, &at
}

func issue(t testing.TB, k *Keys, to Bound, life time.Duration) string {
	t.Helper()
	token, _, err := k.IssueToken(t.Context(), account, to, nil, life)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func good(k *Keys, token string, have objects) error {
	c, err := k.Verify(token)
	if err == nil {
		_, _, err = k.Identify(c, token, nil, have)
	}
	return err
}

func keysOf(t *testing.T, k *Keys) []string {
	t.Helper()
	var set struct {
		Keys []struct{ Kid, Alg, Kty string }
	}
	if err := json.Unmarshal(k.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, key := range set.Keys {
		if key.Alg != "ES256" || key.Kty != "EC" {
			t.Errorf("key %+v", key)
		}
		ids = append(ids, key.Kid)
	}
	return ids
}

// TestRotation checks that a new key signs, the one before verifies until its tokens have run out, and its private half is gone; in
// another process's copy too, once that has read the files.
func TestRotation(t *testing.T) {
	k, dir, now := opened(t)
	other, err := Open(dir, func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	first, old := k.Current(), issue(t, k, Bound{}, MaxLifetime)
	private, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := k.Reload(); err != nil {
		t.Fatal(err)
	}
	fresh := issue(t, k, Bound{}, time.Hour)
	if k.Current() == first || KeyIDOf(fresh) != k.Current() || KeyIDOf(old) != first {
		t.Error("the new key does not sign")
	}
	if ids := keysOf(t, k); !slices.Equal(ids, []string{k.Current(), first}) {
		t.Errorf("published are %q", ids)
	}
	for _, token := range []string{old, fresh} {
		if err := errors.Join(good(k, token, world()), good(other, token, world())); err != nil {
			t.Error(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if text, _ := os.ReadFile(files[0]); bytes.Contains(text, private[30:60]) || !bytes.Contains(text, []byte("PUBLIC KEY")) {
		t.Errorf("retired key: %s", text)
	}
	// Kept while a token may be good, or is in a Secret; then removed.
	*now = now.Add(MaxLifetime)
	check := func(inUse bool, want bool) {
		t.Helper()
		if err := k.Upkeep(func(kid string) bool { return inUse && kid == first }, nil); err != nil {
			t.Fatal(err)
		}
		if k.Knows(first) != want {
			t.Errorf("%s: the key is known: %v", now, !want)
		}
	}
	check(false, true)
	*now = now.Add(time.Minute)
	check(true, true)
	check(false, false)
	if err := good(k, old, world()); err == nil || !strings.Contains(err.Error(), "is not one of the hub's") {
		t.Errorf("a token of a key that is gone: %v", err)
	}
}

// TestOldKeyIsRotated checks that a key is replaced by age, and not before.
func TestOldKeyIsRotated(t *testing.T) {
	k, _, now := opened(t)
	first := k.Current()
	var log bytes.Buffer
	upkeep := func() {
		t.Helper()
		if err := k.Upkeep(nil, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
	}
	*now = now.Add(rotateAfter - time.Hour)
	if upkeep(); k.Current() != first || log.Len() > 0 {
		t.Error("rotated too early")
	}
	*now = now.Add(2 * time.Hour)
	if upkeep(); k.Current() == first || !strings.Contains(log.String(), "new key") {
		t.Error("an old key goes on")
	}
}

// TestRotationCutShort checks each state that a power cut can leave: both before and after, a key signs and its tokens are good.
func TestRotationCutShort(t *testing.T) {
	k, dir, now := opened(t)
	old := issue(t, k, Bound{}, time.Hour)
	key, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Write(filepath.Join(dir, KeyFile), key, 0o600); err != nil { // the last step did not happen
		t.Fatal(err)
	}
	again, err := Open(dir, func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(good(again, old, world()), good(again, issue(t, again, Bound{}, time.Hour), world())); err != nil {
		t.Error(err)
	}
	if n := len(keysOf(t, again)); n != 1 {
		t.Errorf("%d keys", n)
	}
	if err := again.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := good(again, old, world()); err != nil {
		t.Error(err)
	}
}

// TestDamagedRetiredKey checks that it is named, and that a running hub keeps what it has.
func TestDamagedRetiredKey(t *testing.T) {
	k, dir, now := opened(t)
	if err := k.Rotate(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, retiredDir, "*"))
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	before := k.Current()
	for what, damaged := range map[string][]byte{"empty": nil, "half": text[:len(text)/2], "no time": bytes.Replace(text, []byte("Retired: 2"), []byte("Retired: x"), 1)} {
		if err := os.WriteFile(files[0], damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, func() time.Time { return *now }); err == nil || !strings.Contains(err.Error(), files[0]) {
			t.Errorf("%s: %v", what, err)
		}
		if err := k.Reload(); err == nil || k.Current() != before {
			t.Errorf("%s: reloaded: %v", what, err)
		}
	}
}

// TestBound checks what a token says of what it is bound to, and that it ends with that.
func TestBound(t *testing.T) {
	k, _, now := opened(t)
	have := world()
	for name, c := range map[string]struct {
		to    Bound
		key   string // of what it ends with
		extra map[string]string
		text  string
	}{
		"secret": {Bound{Secret: have["Secret/shop/s"].(*corev1.Secret)}, "Secret/shop/s", nil, "secret shop/s, to which the token is bound, has been deleted"},
		"node":   {Bound{Node: have["Node//pi-1"].(*corev1.Node)}, "Node//pi-1", map[string]string{"node-name": "pi-1", "node-uid": "n-1"}, "node pi-1, to which"},
		"none":   {Bound{}, "ServiceAccount/shop/till", nil, "service account shop/till has been deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			token := issue(t, k, c.to, time.Hour)
			claims, err := k.Verify(token)
			if err != nil {
				t.Fatal(err)
			}
			id, accepted, err := k.Identify(claims, token, nil, have)
			if err != nil || id.UID != "sa-1" || !slices.Equal(accepted, []string{Issuer}) {
				t.Fatalf("%+v, %q, %v", id, accepted, err)
			}
			if len(id.Extra) != len(c.extra)+1 || !strings.HasPrefix(id.Extra["authentication.kubernetes.io/credential-id"][0], "JTI=") {
				t.Errorf("extra is %v", id.Extra)
			}
			for key, want := range c.extra {
				if got := id.Extra["authentication.kubernetes.io/"+key]; !slices.Equal(got, []string{want}) {
					t.Errorf("%s is %q", key, got)
				}
			}
			left := objects{}
			for key, obj := range have {
				if key != c.key {
					left[key] = obj
				}
			}
			if err := good(k, token, left); err == nil || !strings.Contains(err.Error(), c.text) || !MayBeLate(err) {
				t.Errorf("gone: %v", err)
			}
			*now = now.Add(time.Hour)
			defer func() { *now = now.Add(-time.Hour) }()
			if err := good(k, token, have); err == nil || !strings.Contains(err.Error(), "expired") || MayBeLate(err) {
				t.Errorf("an hour later: %v", err)
			}
		})
	}
}

// TestLegacyToken checks that the token of a Secret is good for as long as that Secret holds it, also under a retired key.
func TestLegacyToken(t *testing.T) {
	k, _, now := opened(t)
	have := world()
	s := &corev1.Secret{ObjectMeta: meta("shop", "legacy", "l-1"), Type: corev1.SecretTypeServiceAccountToken}
	token, err := k.IssueLegacy(account, s)
	if err != nil {
		t.Fatal(err)
	}
	s.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte(token)}
	if err := good(k, token, have); err == nil || !MayBeLate(err) {
		t.Errorf("without its Secret: %v", err)
	}
	have["Secret/shop/legacy"] = s
	*now = now.Add(10 * MaxLifetime)
	if err := errors.Join(k.Rotate(), good(k, token, have)); err != nil {
		t.Error(err)
	}
	c, err := k.Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err := k.Identify(c, token, nil, have); err != nil || id.Secret != s || len(id.Extra) != 0 {
		t.Errorf("%+v, %v", id, err)
	}
	if _, _, err := k.Identify(c, token, []string{"vault"}, have); err == nil {
		t.Error("a legacy token is for the API only")
	}
	for what, change := range map[string]func(*corev1.Secret){
		"another token": func(s *corev1.Secret) { s.Data = map[string][]byte{"token": []byte(token + "x")} },
		"marked":        func(s *corev1.Secret) { s.Labels = map[string]string{InvalidSinceLabel: "2026-11-28"} },
		"going":         func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: *now} },
	} {
		changed := s.DeepCopy()
		change(changed)
		have["Secret/shop/legacy"] = changed
		if err := good(k, token, have); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	have["Secret/shop/legacy"] = s
	delete(have, "ServiceAccount/shop/till")
	if err := good(k, token, have); err == nil {
		t.Error("accepted without its account")
	}
}

// TestMalformedTokens checks that what is wrong with a token is said, for the log.
func TestMalformedTokens(t *testing.T) {
	k, _, _ := opened(t)
	enc := base64.RawURLEncoding.EncodeToString
	token := issue(t, k, Bound{}, time.Hour)
	parts := strings.Split(token, ".")
	header := func(alg, kid string) string { return enc([]byte(`{"alg":"` + alg + `","kid":"` + kid + `"}`)) }
	for name, c := range map[string]struct{ token, text string }{
		"none":          {header("none", k.Current()) + "." + parts[1] + ".", `its algorithm is "none", not ES256`},
		"HS256":         {header("HS256", k.Current()) + "." + parts[1] + "." + parts[2], `its algorithm is "HS256", not ES256`},
		"another key":   {header("ES256", "k2") + "." + parts[1] + "." + parts[2], `its key "k2" is not one of the hub's`},
		"no key":        {header("ES256", "") + "." + parts[1] + "." + parts[2], `its key "" is not`},
		"huge":          {parts[0] + "." + strings.Repeat("A", maxToken) + "." + parts[2], "which is more than 65536"},
		"no header":     {enc([]byte("hello")) + "." + parts[1] + "." + parts[2], "header cannot be read"},
		"short":         {token[:len(token)-4], "was not signed by this hub"},
		"two parts":     {parts[0] + "." + parts[1], "is not a JWT"},
		"other content": {parts[0] + "." + enc([]byte(`{}`)) + "." + parts[2], "was not signed by this hub"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := k.Verify(c.token); err == nil || !strings.Contains(err.Error(), c.text) || len(err.Error()) > 200 {
				t.Errorf("%v", err)
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	k, _, _ := opened(f)
	token := issue(f, k, Bound{}, time.Hour)
	f.Add(token)
	f.Add("a.b.c")
	f.Add("..")
	f.Add(strings.Replace(token, ".", "..", 1))
	f.Fuzz(func(t *testing.T, text string) {
		IssuerOf(text)
		if _, err := k.Verify(text); err == nil && text != token {
			t.Errorf("accepted %q", text)
		}
	})
}
