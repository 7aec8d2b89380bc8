package jointoken

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"petrel.dev/petrel/internal/wire"
)

var cluster = Cluster{
	ID: "0123abcd", Addresses: []string{"hub.example:6443", "[fd00::1]:6443"},
	Pin: wire.Pin{1, 2, 3}, Key: wire.PublicKey{4, 5, 6}, Broker: "mqtts://u:p@broker:8883",
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func TestRoundTrip(t *testing.T) {
	tok, secret, err := Mint(cluster, Options{TTL: time.Hour, Uses: 2, Description: "shed", Replace: "shed-1"}, noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(" \n" + tok.String()[:40] + "\n" + tok.String()[40:] + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(tok, got); d != "" {
		t.Error(d)
	}
	for k, v := range secret.Data {
		if strings.Contains(string(v), tok.Secret) {
			t.Errorf("the Secret holds the secret itself, in %s", k)
		}
	}
	r, err := FromSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(secret.Data, ToSecret(r).Data); d != "" {
		t.Error(d)
	}
	spent := r.Spend().Spend()
	for _, c := range []struct {
		name   string
		r      Record
		secret string
		at     time.Time
		want   error
	}{
		{"good", r, tok.Secret, noon, nil},
		{"one use left", r.Spend(), tok.Secret, noon, nil},
		{"used up", spent, tok.Secret, noon, ErrUsedUp},
		{"used up, not to be used further", spent.Spend(), tok.Secret, noon, ErrUsedUp},
		{"expired", r, tok.Secret, noon.Add(time.Hour), ErrExpired},
		{"expired, by a hub that has just started in 1970", ending(t, r, "2025-06-01T00:00:00Z"), tok.Secret, time.Unix(100, 0), ErrExpired},
		{"another secret", r, "x", noon, ErrUnknown},
		{"another secret, expired", r, "x", noon.Add(time.Hour), ErrUnknown},
	} {
		if err := c.r.Check(c.secret, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	forever, s, err := Mint(cluster, Options{}, noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err = FromSecret(s); err != nil || r.Spend().Check(forever.Secret, noon.AddDate(50, 0, 0)) != nil {
		t.Errorf("token without bounds: %v %v", r, err)
	}
}

// ending is r with another end.
func ending(t *testing.T, r Record, end string) Record {
	t.Helper()
	at, err := time.Parse(time.RFC3339, end)
	if err != nil {
		t.Fatal(err)
	}
	r.Expires = at
	return r
}

// A token that is made while the clock says 1970 is good for as long as it says.
func TestTokenOfAMachineWithoutAClock(t *testing.T) {
	tok, secret, err := Mint(cluster, Options{TTL: time.Hour}, time.Unix(100, 0), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := FromSecret(secret); err != nil || r.Check(tok.Secret, time.Unix(200, 0)) != nil {
		t.Errorf("%v: %v", err, r.Check(tok.Secret, time.Unix(200, 0)))
	}
}

func TestBadTokens(t *testing.T) {
	tok, secret, err := Mint(cluster, Options{}, noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	good := tok.String()
	for _, c := range []struct {
		in   string
		want error
		text string
	}{
		{"", ErrNotToken, "petrel token create"},
		{"hello", ErrNotToken, "petrel token create"},
		{"petrel2." + good[8:], ErrNotToken, "update petrel"},
		{good[:len(good)-1], ErrTypo, "copy it again"},
		{good + "A", ErrTypo, "copy it again"},
		{good[:20] + "!" + good[21:], ErrTypo, "copy it again"},
		{prefix, ErrTypo, "copy it again"},
	} {
		if _, err := Parse(c.in); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%.20q: %v", c.in, err)
		}
	}
	for i := len(prefix); i < len(good); i++ { // any one character mistyped
		for _, x := range "Aa0_" {
			if bad := good[:i] + string(x) + good[i+1:]; bad != good {
				if _, err := Parse(bad); err == nil {
					// The last character may hold unused bits; then it is the same token.
					if got, _ := Parse(bad); !cmp.Equal(got, tok) {
						t.Fatalf("typo at %d taken", i)
					}
				}
			}
		}
	}
	if _, _, err := Mint(cluster, Options{Uses: -1}, noon, nil); err == nil {
		t.Error("token with -1 uses")
	}
	if _, _, err := Mint(cluster, Options{Replace: "Not_A_Name"}, noon, nil); err == nil || !strings.Contains(err.Error(), "Not_A_Name") {
		t.Errorf("token to replace what cannot be a node: %v", err)
	}
	for key, val := range map[string]string{"hash": "x", "expires": "tomorrow", "uses": "-1", "token-id": "other"} {
		s := secret.DeepCopy()
		s.Data[key] = []byte(val)
		if _, err := FromSecret(s); err == nil || !strings.Contains(err.Error(), secret.Name) {
			t.Errorf("secret with %s %q: %v", key, val, err)
		}
	}
}

// TestNames checks that a pattern travels in the token and is kept with it, and which patterns are none.
func TestNames(t *testing.T) {
	tok, secret, err := Mint(cluster, Options{Names: "pi-{serial}"}, noon, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(tok.String())
	if err != nil || got.Names != "pi-{serial}" || !cmp.Equal(got, tok) {
		t.Errorf("%+v, %v", got, err)
	}
	r, err := FromSecret(secret)
	if err != nil || r.Names != "pi-{serial}" {
		t.Errorf("%+v, %v", r, err)
	}
	secret.Data["names"] = []byte("{")
	if _, err := FromSecret(secret); err == nil || !strings.Contains(err.Error(), secret.Name) {
		t.Errorf("a damaged pattern: %v", err)
	}
	for _, o := range []Options{{Names: "pi-1"}, {Names: "pi-{x}"}, {Names: "pi-{serial}", Replace: "pi-1"}} {
		if _, _, err := Mint(cluster, o, noon, nil); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

func TestConfigMap(t *testing.T) {
	m := ToConfigMap(cluster)
	got, err := FromConfigMap(m)
	if err != nil {
		t.Fatal(err)
	}
	want := cluster
	want.Broker = "" // not public
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	m.Data["hub-key"] = "short"
	if _, err := FromConfigMap(m); err == nil {
		t.Error("damaged configmap read")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Token{Cluster: cluster, TokenID: "i", Secret: "s"}.String())
	f.Add(Token{Cluster: cluster, TokenID: "i", Secret: "s", Names: "pi-{mac}"}.String())
	f.Add(prefix + "AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(tok.String()); err != nil || !cmp.Equal(tok, again) {
			t.Errorf("not the same after a round trip: %v", err)
		}
	})
}
