package oidc

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/internal/memtest"
)

// TestHostileIssuers checks that an issuer which answers with anything but a configuration and keys is refused, in bounded time and memory.
func TestHostileIssuers(t *testing.T) {
	write := func(text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { _, _ = w.Write([]byte(text)) }
	}
	endless := func(head, text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			_, err := w.Write([]byte(head))
			for err == nil {
				_, err = w.Write([]byte(text))
			}
		}
	}
	drip := func(w http.ResponseWriter) {
		for err := error(nil); err == nil; time.Sleep(time.Millisecond) {
			if _, err = w.Write([]byte(" ")); err == nil {
				err = http.NewResponseController(w).Flush()
			}
		}
	}
	keys := func(n int, key string) string { return `{"keys":[` + strings.Repeat(key+",", n-1) + key + `]}` }
	like := newIssuer(t) // keys take their time
	const small = `{"kty":"RSA","alg":"RS256","use":"sig","kid":"k1","n":"Aw","e":"AQAB"}`
	huge := `{"kty":"RSA","alg":"RS256","use":"sig","kid":"k1","e":"AQAB","n":"` + strings.Repeat("_", 100_000) + `"}`
	for name, c := range map[string]struct {
		discovery, keys func(http.ResponseWriter) // nil: as it should be
		err             string
	}{
		"endless configuration":    {endless("{", strings.Repeat(`"a":{},`, 10_000)), nil, "more than 262144 bytes"},
		"slow configuration":       {drip, nil, "exceeded"},
		"HTML":                     {write("<html>"), nil, "cannot be asked"},
		"nothing":                  {write(""), nil, "cannot be asked"},
		"deep":                     {write(strings.Repeat(`{"a":`, 50_000)), nil, "cannot be asked"},
		"another issuer":           {write(`{"issuer":"https://other","jwks_uri":"https://other/keys"}`), nil, "did not match the issuer"},
		"keys without TLS":         {write(`{"issuer":"ISSUER","jwks_uri":"http://127.0.0.1:1/keys"}`), nil, "no https URL"},
		"keys in a file":           {write(`{"issuer":"ISSUER","jwks_uri":"file:///etc/passwd"}`), nil, "no https URL"},
		"keys nowhere":             {write(`{"issuer":"ISSUER"}`), nil, "no https URL"},
		"endless keys":             {nil, endless(`{"keys":[`, strings.Repeat(small+",", 1000)), "more than 262144 bytes"},
		"slow keys":                {nil, drip, "exceeded"},
		"100,000 keys":             {nil, write(keys(100_000, small)), "more than 262144 bytes"},
		"a thousand keys":          {nil, write(keys(1000, small)), "1000 keys, and 100 are the limit"},
		"100,000 empty keys":       {nil, write(keys(80_000, "{}")), "80000 keys, and 100 are the limit"},
		"a key of two bits":        {nil, write(keys(1, small)), "failed to verify"},
		"a hundred such keys":      {nil, write(keys(100, small)), "failed to verify"},
		"a key of 600,000 bits":    {nil, write(keys(1, huge)), "more than 8192 bits"},
		"an exponent of 1":         {nil, write(keys(1, strings.Replace(small, "AQAB", "AQ", 1))), "failed to verify"},
		"a modulus of 0":           {nil, write(keys(1, strings.Replace(small, "Aw", "AA", 1))), "failed to verify"},
		"a symmetric key":          {nil, write(keys(1, `{"kty":"oct","kid":"k1","alg":"HS256","k":"AA"}`)), "failed to verify"},
		"a point off the curve":    {nil, write(keys(1, `{"kty":"EC","kid":"k1","crv":"P-256","x":"AQ","y":"AQ"}`)), "failed to verify"},
		"keys that are none":       {nil, write(`{"keys":"no"}`), "failed to verify"},
		"keys of nothing":          {nil, write(`{"keys":null}`), "failed to verify"},
		"keys elsewhere, no TLS":   {nil, func(w http.ResponseWriter) { w.Header().Set("Location", "http://127.0.0.1:1/"); w.WriteHeader(302) }, "no https URL"},
		"keys elsewhere, in a way": {nil, func(w http.ResponseWriter) { w.Header().Set("Location", "/keys?again"); w.WriteHeader(302) }, "asked a moment ago"},
	} {
		t.Run(name, func(t *testing.T) {
			is := &issuer{rsa: like.rsa, ec: like.ec}
			is.kid.Store("k1")
			is.start(t)
			is.answer = func(w http.ResponseWriter, r *http.Request) bool {
				f := c.keys
				if r.URL.Path != "/keys" {
					f = c.discovery
				}
				if f == nil {
					return false
				}
				f(issued{w, is.URL})
				return true
			}
			i := open(t, is.config(t))
			i.client.Timeout = time.Minute
			if c.err == "exceeded" { // the others fail for what they answer, however long that takes
				i.client.Timeout = 500 * time.Millisecond
			}
			token := is.token(t, "RS256", "k1", nil)
			var u auth.User
			var ours bool
			var err error
			n := memtest.Allocated(func() { u, _, ours, err = i.Token(t.Context(), token, nil) })
			if !ours || err == nil || !strings.Contains(err.Error(), c.err) || len(err.Error()) > 4096 {
				t.Errorf("%+v, %v, %v", u, ours, err)
			}
			if n > 32 {
				t.Errorf("%d MiB were allocated", n)
			}
		})
	}
}

// issued writes the issuer's URL where an answer says ISSUER.
type issued struct {
	http.ResponseWriter
	url string
}

func (i issued) Write(b []byte) (int, error) {
	if !strings.Contains(string(b[:min(len(b), 64)]), "ISSUER") {
		return i.ResponseWriter.Write(b)
	}
	return i.ResponseWriter.Write([]byte(strings.Replace(string(b), "ISSUER", i.url, 1)))
}

func (i issued) Unwrap() http.ResponseWriter { return i.ResponseWriter }

// TestForgedHeaders checks that nothing in a token's own header chooses how it is verified, or sends the hub anywhere.
func TestForgedHeaders(t *testing.T) {
	is, elsewhere := newIssuer(t), newIssuer(t)
	i := open(t, is.config(t))
	good := strings.Split(is.token(t, "RS256", "k1", nil), ".")
	if _, _, _, err := i.Token(t.Context(), strings.Join(good, "."), nil); err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&is.rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	// mac signs with a secret that everybody knows.
	mac := func(secret []byte) string {
		signed := enc([]byte(`{"alg":"HS256","kid":"k1"}`)) + "." + good[1]
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(signed))
		return signed + "." + enc(h.Sum(nil))
	}
	// own signs with the key of elsewhere, under a header that says so.
	own := func(header string) string { return elsewhere.signed(t, header, good[1]) }
	point, err := json.Marshal(map[string]string{"kty": "RSA", "alg": "RS256", "kid": "k1", "n": enc(elsewhere.rsa.N.Bytes()), "e": enc(big.NewInt(int64(elsewhere.rsa.E)).Bytes())})
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"HMAC with the public key":         mac(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"HMAC with the public key, as DER": mac(public),
		"HMAC with the modulus":            mac(is.rsa.N.Bytes()),
		"HMAC with nothing":                mac(nil),
		"none":                             enc([]byte(`{"alg":"none","kid":"k1"}`)) + "." + good[1] + ".",
		"None":                             enc([]byte(`{"alg":"None"}`)) + "." + good[1] + ".",
		"no algorithm":                     enc([]byte(`{"kid":"k1"}`)) + "." + good[1] + "." + good[2],
		"another algorithm's name":         enc([]byte(`{"alg":"ES256","kid":"k1"}`)) + "." + good[1] + "." + good[2],
		"RSA under an EC key's name":       is.token(t, "RS256", "e1", nil),
		"a key in the header":              own(`{"alg":"RS256","kid":"k1","jwk":` + string(point) + `}`),
		"keys elsewhere":                   own(`{"alg":"RS256","kid":"k1","jku":"` + elsewhere.URL + `/keys"}`),
		"a certificate elsewhere":          own(`{"alg":"RS256","kid":"k1","x5u":"` + elsewhere.URL + `/keys"}`),
		"no name of a key":                 own(`{"alg":"RS256"}`),
		"a condition of its own":           is.signed(t, `{"alg":"RS256","kid":"k1","crit":["x"],"x":1}`, good[1]),
		"another encoding":                 is.signed(t, `{"alg":"RS256","kid":"k1","crit":["b64"],"b64":false}`, good[1]),
		"four parts":                       strings.Join(good, ".") + ".AA",
		"a header that is none":            enc([]byte(`[]`)) + "." + good[1] + "." + good[2],
	} {
		if u, _, ours, err := i.Token(t.Context(), token, nil); ours && err == nil {
			t.Errorf("%s: %+v", name, u)
		}
	}
	if n := elsewhere.asked.Load(); n != 0 {
		t.Errorf("the hub was sent elsewhere %d times", n)
	}
}

// TestHostileClaims checks that claims of other types than they should have are refused, and that no claim makes a user or a group of the
// cluster's own, whatever the prefixes are.
func TestHostileClaims(t *testing.T) {
	is := newIssuer(t)
	for name, c := range map[string]struct {
		change func(*Config)
		claims map[string]any
	}{
		"name of a number":     {nil, map[string]any{"sub": 42}},
		"name of an object":    {nil, map[string]any{"sub": map[string]any{"a": 1}}},
		"name of a list":       {nil, map[string]any{"sub": []string{"a"}}},
		"groups of an object":  {nil, map[string]any{"groups": map[string]any{"system:masters": true}}},
		"groups of lists":      {nil, map[string]any{"groups": [][]string{{"system:masters"}}}},
		"groups of a number":   {nil, map[string]any{"groups": 7}},
		"verified by a text":   {func(c *Config) { c.UsernameClaim = "email" }, map[string]any{"email_verified": "true"}},
		"verified by a number": {func(c *Config) { c.UsernameClaim = "email" }, map[string]any{"email_verified": 1}},
		"end of a text":        {nil, map[string]any{"exp": "tomorrow"}},
		"end of an object":     {nil, map[string]any{"exp": map[string]any{}}},
		"no end":               {nil, map[string]any{"exp": nil}},
		"end long ago":         {nil, map[string]any{"exp": -1e300}},
		"begins later":         {nil, map[string]any{"nbf": time.Now().Add(24 * time.Hour).Unix()}},
		"audience of a number": {nil, map[string]any{"aud": 7}},
		"no audience":          {nil, map[string]any{"aud": nil}},
		"issuer of a list":     {nil, map[string]any{"iss": []string{is.URL}}},
		"required of a list":   {func(c *Config) { c.RequiredClaims = map[string]string{"hd": "x"} }, map[string]any{"hd": []string{"x"}}},
		"system by a prefix":   {func(c *Config) { c.UsernamePrefix = "sys" }, map[string]any{"sub": "tem:admin"}},
		"the name of a node":   {func(c *Config) { c.UsernamePrefix = "-" }, map[string]any{"sub": "system:node:pi-1"}},
		"the scheduler":        {func(c *Config) { c.UsernamePrefix, c.UsernameClaim = "", "email" }, map[string]any{"email": "system:kube-scheduler"}},
		"claims of somewhere":  {func(c *Config) { c.UsernameClaim = "name" }, map[string]any{"_claim_names": map[string]string{"name": "s"}, "_claim_sources": map[string]any{"s": map[string]string{"endpoint": is.URL + "/keys"}}}},
	} {
		cfg := is.config(t)
		if c.change != nil {
			c.change(&cfg)
		}
		if u, _, ours, err := open(t, cfg).Token(t.Context(), is.token(t, "RS256", "k1", c.claims), nil); ours && err == nil {
			t.Errorf("%s: %+v", name, u)
		}
	}
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprint("g", i)
	}
	for name, c := range map[string]struct {
		prefix string
		groups any
		want   []string
	}{
		"as they are":         {"", []string{"system:masters", "system:nodes", "a"}, []string{"a"}},
		"by a prefix":         {"sys", []string{"tem:masters", "a"}, []string{"sysa"}},
		"by the whole prefix": {"system:", []string{"masters", "serviceaccounts"}, nil},
		"one":                 {"", "system:masters", nil},
		"with a prefix":       {"oidc:", []string{"system:masters"}, []string{"oidc:system:masters"}},
		"nothing":             {"", []string{""}, []string{""}},
		"many":                {"", many, many},
	} {
		cfg := is.config(t)
		cfg.GroupsPrefix = c.prefix
		u, _, _, err := open(t, cfg).Token(t.Context(), is.token(t, "RS256", "k1", map[string]any{"groups": c.groups}), nil)
		if err != nil || !slices.Equal(u.Groups, append(slices.Clone(c.want), "system:authenticated")) {
			t.Errorf("%s: %q, %v", name, u.Groups, err)
		}
	}
}
