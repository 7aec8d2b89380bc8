package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// issuer is a small OpenID Connect issuer on loopback.
type issuer struct {
	*httptest.Server
	rsa   *rsa.PrivateKey
	ec    *ecdsa.PrivateKey
	kid   atomic.Value // string: the name under which the RSA key is published
	away  atomic.Bool  // it answers 503
	huge  atomic.Bool  // it answers with more than anybody reads
	asked atomic.Int32 // for its keys
	// answer answers instead, and reports whether it has; nil: never. Set before the first question.
	answer func(w http.ResponseWriter, r *http.Request) bool
}

var enc = base64.RawURLEncoding.EncodeToString

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.kid.Store("k1")
	var err error
	if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if i.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	i.start(t)
	return i
}

func (i *issuer) start(t *testing.T) {
	i.Server = httptest.NewTLSServer(http.HandlerFunc(i.serve))
	t.Cleanup(i.Close)
}

func (i *issuer) serve(w http.ResponseWriter, r *http.Request) {
	var answer any
	switch {
	case i.answer != nil && i.answer(w, r):
		return
	case i.away.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case i.huge.Load():
		w.Write(make([]byte, 2*maxAnswer)) // the reader stops early
		return
	case r.URL.Path == "/.well-known/openid-configuration":
		answer = map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256", "ES256"}}
	case r.URL.Path == "/keys":
		i.asked.Add(1)
		point, _ := i.ec.PublicKey.Bytes()
		answer = map[string]any{"keys": []any{
			map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": i.kid.Load().(string), "n": enc(i.rsa.N.Bytes()), "e": enc(big.NewInt(int64(i.rsa.E)).Bytes())},
			map[string]string{"kty": "EC", "alg": "ES256", "use": "sig", "kid": "e1", "crv": "P-256", "x": enc(point[1:33]), "y": enc(point[33:])},
		}}
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// token signs claims over those of a good token; a nil value takes one away.
func (i *issuer) token(t *testing.T, alg, kid string, change map[string]any) string {
	t.Helper()
	claims := map[string]any{"iss": i.URL, "aud": "petrel", "sub": "42", "email": "ada@example.com", "groups": []string{"ops", "system:masters"}, "exp": time.Now().Add(time.Hour).Unix(), "jti": "j"}
	for k, v := range change {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	header := fmt.Sprintf(`{"alg":%q,"kid":%q}`, alg, kid)
	if alg == "RS256" {
		return i.signed(t, header, enc(body))
	}
	signed := enc([]byte(header)) + "." + enc(body)
	sum := sha256.Sum256([]byte(signed))
	var sig []byte
	if alg == "ES256" {
		var r, s *big.Int
		r, s, err = ecdsa.Sign(rand.Reader, i.ec, sum[:])
		sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + enc(sig)
}

// signed signs a body by the RSA key, under any header.
func (i *issuer) signed(t *testing.T, header, body string) string {
	t.Helper()
	signed := enc([]byte(header)) + "." + body
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.rsa, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + enc(sig)
}

// config is what an operator would choose for i.
func (i *issuer) config(t *testing.T) Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{IssuerURL: i.URL, ClientID: "petrel", CAFile: file, GroupsClaim: "groups", GroupsPrefix: ""}
}

func open(t *testing.T, cfg Config) *Issuer {
	t.Helper()
	i, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestUsers checks who a token makes its bearer, by the operator's settings.
func TestUsers(t *testing.T) {
	is := newIssuer(t)
	for name, c := range map[string]struct {
		change func(*Config)
		claims map[string]any
		user   string
		groups []string
		err    string
	}{
		"defaults":           {nil, nil, is.URL + "#42", []string{"ops"}, ""},
		"no prefix":          {func(c *Config) { c.UsernamePrefix = "-" }, nil, "42", []string{"ops"}, ""},
		"prefixes":           {func(c *Config) { c.UsernamePrefix, c.GroupsPrefix = "p:", "g:" }, nil, "p:42", []string{"g:ops", "g:system:masters"}, ""},
		"mail":               {func(c *Config) { c.UsernameClaim = "email" }, nil, "ada@example.com", []string{"ops"}, ""},
		"verified mail":      {func(c *Config) { c.UsernameClaim = "email" }, map[string]any{"email_verified": true}, "ada@example.com", []string{"ops"}, ""},
		"unverified mail":    {func(c *Config) { c.UsernameClaim = "email" }, map[string]any{"email_verified": false}, "", nil, "email not verified"},
		"one group":          {nil, map[string]any{"groups": "one"}, is.URL + "#42", []string{"one"}, ""},
		"no groups":          {nil, map[string]any{"groups": nil}, is.URL + "#42", nil, ""},
		"groups of numbers":  {nil, map[string]any{"groups": []int{1}}, "", nil, "parse groups claim"},
		"no name":            {func(c *Config) { c.UsernameClaim = "name" }, nil, "", nil, `claim "name" is not there`},
		"empty name":         {nil, map[string]any{"sub": ""}, "", nil, "cannot be the name of a person"},
		"a node":             {func(c *Config) { c.UsernamePrefix = "-" }, map[string]any{"sub": "system:node:pi-1"}, "", nil, "cannot be the name of a person"},
		"required claim":     {func(c *Config) { c.RequiredClaims = map[string]string{"hd": "x"} }, map[string]any{"hd": "x"}, is.URL + "#42", []string{"ops"}, ""},
		"another claim":      {func(c *Config) { c.RequiredClaims = map[string]string{"hd": "x"} }, map[string]any{"hd": "y"}, "", nil, "required claim hd value does not match. Got = y, want = x"},
		"required and gone":  {func(c *Config) { c.RequiredClaims = map[string]string{"hd": "x"} }, nil, "", nil, `claim "hd" is not there`},
		"expired":            {nil, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}, "", nil, "expired"},
		"for others":         {nil, map[string]any{"aud": "vault"}, "", nil, "expected audience"},
		"for others as well": {nil, map[string]any{"aud": []string{"vault", "petrel"}}, is.URL + "#42", []string{"ops"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := is.config(t)
			if c.change != nil {
				c.change(&cfg)
			}
			u, accepted, ours, err := open(t, cfg).Token(t.Context(), is.token(t, "RS256", "k1", c.claims), nil)
			if c.err != "" {
				if !ours || err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%+v, %v, %v", u, ours, err)
				}
				return
			}
			if err != nil || !ours || len(accepted) == 0 || u.Name != c.user || !slices.Equal(u.Groups, append(c.groups, "system:authenticated")) ||
				!slices.Equal(u.Extra["authentication.kubernetes.io/credential-id"], []string{"JTI=j"}) {
				t.Errorf("%+v, %q, %v, %v", u, accepted, ours, err)
			}
		})
	}
}

// TestForged checks that algorithms that the operator has not chosen, keys that the issuer has not and tokens of others are refused.
func TestForged(t *testing.T) {
	is, other := newIssuer(t), newIssuer(t)
	i := open(t, is.config(t))
	token := is.token(t, "RS256", "k1", nil)
	if _, _, _, err := i.Token(t.Context(), token, nil); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	for name, forged := range map[string]string{
		"ES256":         is.token(t, "ES256", "e1", nil),
		"none":          enc([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"another key":   other.token(t, "RS256", "k1", map[string]any{"iss": is.URL}),
		"no signature":  parts[0] + "." + parts[1] + ".",
		"other content": parts[0] + "." + enc([]byte(`{"iss":"`+is.URL+`"}`)) + "." + parts[2],
	} {
		if u, _, ours, err := i.Token(t.Context(), forged, nil); !ours || err == nil {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	if _, _, ours, _ := i.Token(t.Context(), other.token(t, "RS256", "k1", nil), nil); ours {
		t.Error("another issuer's token is taken for this one's")
	}
	if _, _, ours, err := i.Token(t.Context(), token, []string{"vault"}); !ours || err == nil {
		t.Error("a person's token is good for others")
	}
	cfg := is.config(t)
	cfg.SigningAlgs = []string{"ES256"}
	if _, _, _, err := open(t, cfg).Token(t.Context(), is.token(t, "ES256", "e1", nil), nil); err != nil {
		t.Errorf("ES256, which was chosen: %v", err)
	}
}

// TestIssuerAway checks that the hub starts without the issuer, asks it again later, and goes on with its keys when it is away again.
func TestIssuerAway(t *testing.T) {
	is := newIssuer(t)
	is.away.Store(true)
	i := open(t, is.config(t))
	try := func() error {
		_, _, ours, err := i.Token(t.Context(), is.token(t, "RS256", "k1", nil), nil)
		if !ours {
			t.Error("not of this issuer")
		}
		return err
	}
	// again lets the pauses after a question pass.
	again := func() {
		i.mu.Lock()
		i.next = time.Time{}
		i.mu.Unlock()
		p := i.client.Transport.(*polite)
		p.mu.Lock()
		clear(p.last)
		p.mu.Unlock()
	}
	if err := try(); err == nil || !strings.Contains(err.Error(), "cannot be asked: 503") {
		t.Errorf("away: %v", err)
	}
	is.away.Store(false)
	if err := try(); err == nil {
		t.Error("it was asked again at once")
	}
	again()
	is.huge.Store(true)
	if err := try(); err == nil {
		t.Error("nonsense of any length is read")
	}
	is.huge.Store(false)
	again()
	if err := try(); err != nil {
		t.Errorf("back: %v", err)
	}
	is.away.Store(true)
	again()
	if err := try(); err != nil {
		t.Errorf("away again: %v", err)
	}
}

// TestKeysChange checks that a new key of the issuer is fetched when its first token comes, and that tokens with keys of nobody do not make
// the hub ask for each.
func TestKeysChange(t *testing.T) {
	is := newIssuer(t)
	i := open(t, is.config(t))
	made := 0
	try := func(kid string) error {
		made++ // another token each time: what was found good is remembered for an hour
		_, _, _, err := i.Token(t.Context(), is.token(t, "RS256", kid, map[string]any{"n": made}), nil)
		return err
	}
	if err := try("k1"); err != nil {
		t.Fatal(err)
	}
	asked := i.client.Transport.(*polite)
	asked.mu.Lock()
	for address := range asked.last {
		asked.last[address] = time.Now().Add(time.Hour) // the pause outlasts what follows on a slow machine too
	}
	asked.mu.Unlock()
	for n := range 20 {
		if err := try(fmt.Sprint("nobody's", n)); err == nil {
			t.Fatal("accepted")
		}
	}
	if n := is.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	is.kid.Store("k2")
	clear(asked.last)
	// The library may still hand out the answer of the last question for a moment.
	err := try("k2")
	for n := 0; n < 6000 && err != nil && strings.Contains(err.Error(), errTooOften.Error()); n++ {
		time.Sleep(10 * time.Millisecond)
		err = try("k2")
	}
	if err != nil {
		t.Error(err)
	}
	// It takes the new keys over a moment after it has handed them out.
	taken := try("k1")
	for n := 0; n < 6000 && taken == nil; n++ {
		time.Sleep(10 * time.Millisecond)
		taken = try("k1")
	}
	if taken == nil {
		t.Error("a key that the issuer has taken back is good")
	}
}

// TestHangingIssuer checks that an issuer that does not answer holds a bounded number of requests, and none whose token was found good
// before.
func TestHangingIssuer(t *testing.T) {
	is := newIssuer(t)
	i := open(t, is.config(t))
	token := is.token(t, "RS256", "k1", nil)
	try := func(token string) error {
		_, _, _, err := i.Token(t.Context(), token, nil)
		return err
	}
	if err := try(token); err != nil {
		t.Fatal(err)
	}
	for range maxWaiting {
		i.slots <- struct{}{}
	}
	if err := try(is.token(t, "RS256", "k9", nil)); !errors.Is(err, errBusy) {
		t.Errorf("one more: %v", err)
	}
	if err := try(token); err != nil {
		t.Errorf("known: %v", err)
	}
}

// TestSettings checks that a wrong setting is refused with its flag.
func TestSettings(t *testing.T) {
	good := Config{IssuerURL: "https://issuer.example/x", ClientID: "petrel"}
	for want, change := range map[string]func(*Config){
		"--oidc-issuer-url":   func(c *Config) { c.IssuerURL = "http://issuer.example" },
		"without user, query": func(c *Config) { c.IssuerURL += "?a=b" },
		"--oidc-client-id":    func(c *Config) { c.ClientID = "" },
		"--oidc-signing-algs": func(c *Config) { c.SigningAlgs = []string{"HS256"} },
		"--oidc-ca-file":      func(c *Config) { c.CAFile = "/nowhere" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
