package auth

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
)

// sort is one sort of bearer tokens: those that begin with its letter. "-bad" behind it is refused.
type sort struct {
	letter string
	open   map[string]func() // what Until was asked for
}

func (s *sort) Token(_ context.Context, token string, _ []string) (User, []string, bool, error) {
	if !strings.HasPrefix(token, s.letter) {
		return User{}, nil, false, nil
	}
	if strings.HasSuffix(token, "-bad") {
		return User{}, nil, true, errors.New("bad " + s.letter)
	}
	return User{Name: s.letter}, nil, true, nil
}

func (s *sort) Until(token string, end func()) func() {
	if !strings.HasPrefix(token, s.letter) {
		return func() {}
	}
	s.open[token] = end
	return func() { delete(s.open, token) }
}

// TestSortsOfBearerTokens checks that each sort judges its own tokens, and ends the open requests of them.
func TestSortsOfBearerTokens(t *testing.T) {
	a := NewAuthenticator(newWorld().load(t, t.TempDir()), objects{})
	x, y := &sort{"x", map[string]func(){}}, &sort{"y", map[string]func(){}}
	a.Add(x)
	a.Add(y)
	for token, want := range map[string]struct{ user, err string }{
		"x1": {"x", ""}, "y1": {"y", ""}, "x-bad": {"", "bad x"}, "y-bad": {"", "bad y"}, "z": {"", "not a JWT"},
	} {
		u, ok, err := a.Authenticate(bearing(token))
		if ok != (want.err == "") || u.Name != want.user || err == nil != ok || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%s: %+v, %v, %v", token, u, ok, err)
		}
	}
	ended := 0
	stop := a.Until(bearing("y1"), func() { ended++ })
	if len(x.open) != 0 || len(y.open) != 1 {
		t.Fatalf("asked for %v and %v", x.open, y.open)
	}
	y.open["y1"]()
	if stop(); ended != 1 || len(y.open) != 0 {
		t.Errorf("ended %d times, %v", ended, y.open)
	}
	a.Until(httptest.NewRequest("GET", "/api", nil), func() { t.Error("a stranger's request ended") })()
}
