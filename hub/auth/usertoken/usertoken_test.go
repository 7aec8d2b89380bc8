package usertoken

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"petrel.dev/petrel/hub/auth"
)

func create(t *testing.T, dir, user string, ttl time.Duration, groups ...string) string {
	t.Helper()
	text, _, err := Create(dir, user, groups, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func opened(t *testing.T, dir string) *Users {
	t.Helper()
	u, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func who(u *Users, text string) (auth.User, error) {
	user, _, ours, err := u.Token(context.Background(), text, nil)
	if !ours {
		return auth.User{}, os.ErrInvalid
	}
	return user, err
}

// TestTokens checks that a token opens the API for its user and groups, from another start of the hub too, until it ends or is revoked,
// and that the file does not have it.
func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(30 * 365 * 24 * time.Hour) // the bubble begins in 2000
		dir := t.TempDir()
		ada := create(t, dir, "ada@example.com", time.Hour, "ops", "a,b c")
		bob, bob2 := create(t, dir, "bob", 0), create(t, dir, "bob", 0)
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || strings.Contains(string(text), ada[len(ada)-20:]) {
			t.Fatalf("%v: %s", err, text)
		}
		u := opened(t, dir)
		user, err := who(u, ada)
		if err != nil || user.Name != "ada@example.com" || !slices.Equal(user.Groups, []string{"ops", "a,b c", "system:authenticated"}) {
			t.Errorf("%+v, %v", user, err)
		}
		for _, forged := range []string{ada + "x", ada[:len(ada)-1], prefix, prefix + "-", prefix + "aaaaaaaa-" + ada[30:]} {
			if _, err := who(u, forged); err == nil || err == os.ErrInvalid {
				t.Errorf("%q: %v", forged, err)
			}
		}
		if _, _, ours, _ := u.Token(t.Context(), "eyJhbGciOiJFUzI1NiJ9.e30.x", nil); ours {
			t.Error("a JWT is taken for a user's token")
		}
		if _, accepted, _, err := u.Token(t.Context(), ada, []string{"vault"}); err == nil || len(accepted) > 0 {
			t.Error("a user's token is good for others")
		}
		time.Sleep(time.Hour)
		if _, err := who(u, ada); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after its time: %v", err)
		}
		gone, err := Revoke(dir, "bob")
		if err != nil || len(gone) != 2 {
			t.Errorf("revoked %v, %v", gone, err)
		}
		if err := u.Reload(); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{bob, bob2} {
			if _, err := who(u, text); err == nil || !strings.Contains(err.Error(), "was revoked") {
				t.Errorf("revoked: %v", err)
			}
		}
		create(t, dir, "eve", 0)
		if list, err := List(dir); err != nil || len(list) != 1 || list[0].User != "eve" {
			t.Errorf("the file holds %+v, %v", list, err)
		}
	})
}

// TestOpenRequestsEnd checks that a request that goes on ends when its token is revoked or its time is over, and no other.
func TestOpenRequestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(30 * 365 * 24 * time.Hour)
		dir := t.TempDir()
		ada, bob := create(t, dir, "ada", time.Hour), create(t, dir, "bob", 0)
		u := opened(t, dir)
		var ended []string
		until := func(text, name string) func() { return u.Until(text, func() { ended = append(ended, name) }) }
		until(bob, "bob")
		until(bob, "a request that is over")()
		until(ada, "ada")
		until("eyJ", "a JWT")
		check := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(ended, want) {
				t.Errorf("%s: %q ended", when, ended)
			}
			ended = nil
		}
		check("at the start")
		if _, err := Revoke(dir, "bob"); err != nil {
			t.Fatal(err)
		}
		if err := u.Reload(); err != nil {
			t.Fatal(err)
		}
		check("after the revocation", "bob")
		until(bob, "late")
		check("admitted just before", "late")
		time.Sleep(time.Hour)
		check("an hour later", "ada")
		if err := u.Reload(); err != nil {
			t.Fatal(err)
		}
		check("at the next change")
		if len(u.open) != 0 {
			t.Errorf("%d requests are still remembered", len(u.open))
		}
	})
}

// TestNames checks that a token cannot be made for what is a part of the cluster.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		user   string
		groups []string
		text   string
	}{
		{"", nil, "1 to 253 bytes"},
		{"system:node:pi-1", nil, "part of the cluster"},
		{"ada", []string{"system:nodes"}, "given by the hub itself"},
		{"ada", []string{""}, "a group's name"},
		{"ada", slices.Repeat([]string{"g"}, 33), "at most 32"},
	} {
		if _, _, err := Create(dir, c.user, c.groups, 0); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q in %q: %v", c.user, c.groups, err)
		}
	}
	create(t, dir, "root", 0, "system:masters")
	if _, err := Revoke(dir, "nobody"); err == nil {
		t.Error("nobody was revoked")
	}
}

// TestDamagedFile checks that a file with a line that cannot be read names the line, and changes nothing.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	ada := create(t, dir, "ada", 0)
	u := opened(t, dir)
	for _, line := range []string{"x", "aaaaaaaa 12 2026-11-28T10:00:00Z - eve -", "aaaaaaaa " + strings.Repeat("0", 64) + " now - eve -", "aaaaaaaa " + strings.Repeat("0", 64) + " 2026-11-28T10:00:00Z - %zz -"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(head+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := u.Reload(); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", line, err)
		}
		if _, err := who(u, ada); err != nil {
			t.Errorf("the list before is not in force: %v", err)
		}
		if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil {
			t.Error("a hub starts with it")
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("aaaaaaaa " + strings.Repeat("0", 64) + " 2026-11-28T10:00:00Z - eve g,h")
	f.Fuzz(func(t *testing.T, text string) {
		if tok, err := parse(text); err == nil {
			again, err := parse(strings.TrimSpace(tok.line()))
			if err != nil && tok.User != "" || err == nil && again.User != tok.User {
				t.Errorf("%q became %q: %v", text, tok.line(), err)
			}
		}
	})
}
