// Package usertoken has the bearer tokens of people and programs outside of the cluster, which `petrel token create --user` makes on
// the hub's machine. The hub keeps their hashes in a file, and applies changes of the file while it runs.
package usertoken

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/internal/clock"
)

// Users judge tokens by the file of one PKI directory. They are an auth.BearerTokens, safe for concurrent use.
type Users struct {
	dir string
	log *slog.Logger // never nil

	list atomic.Pointer[map[string]known] // by id; never nil after Open, replaced as a whole

	mu   sync.Mutex
	open map[*longRequest]struct{} // requests to end when their token is revoked; guarded by mu
}

// known is a token with its user, which requests share.
type known struct {
	Token
	user auth.User
}

// longRequest is a request that goes on after it was admitted: a watch, a stream.
type longRequest struct {
	text string
	end  func()
}

var _ auth.BearerTokens = (*Users)(nil)

// Open reads the file of a PKI directory.
func Open(dir string, log *slog.Logger) (*Users, error) {
	u := &Users{dir: dir, log: log, open: map[*longRequest]struct{}{}}
	return u, u.Reload()
}

// Reload reads the file again, and ends the open requests of tokens that are not in it any more. After an error the list before stays
// in force.
func (u *Users) Reload() error {
	tokens, err := List(u.dir)
	if err != nil {
		return err
	}
	list := make(map[string]known, len(tokens))
	for _, t := range tokens {
		list[t.ID] = known{t, auth.User{Name: t.User, Groups: append(slices.Clone(t.Groups), auth.GroupAuthenticated)}}
	}
	before := u.list.Swap(&list)
	if before != nil && len(*before) != len(list) {
		u.log.Info("tokens of users have changed", "tokens", len(list), "before", len(*before))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for q := range u.open {
		if _, err := u.find(q.text); err != nil {
			delete(u.open, q)
			go q.end()
		}
	}
	return nil
}

// find returns the token that text is.
func (u *Users) find(text string) (known, error) {
	id, _, _ := strings.Cut(strings.TrimPrefix(text, prefix), "-")
	t, ok := (*u.list.Load())[id]
	sum := sha256.Sum256([]byte(text))
	switch {
	case !ok:
		return known{}, fmt.Errorf("the token %.8q of a user does not exist, or was revoked", id)
	case subtle.ConstantTimeCompare(sum[:], t.hash[:]) == 0:
		return known{}, fmt.Errorf("the token %s of user %q is not the one that was made", t.ID, t.User)
	case t.ended(clock.Now()):
		return known{}, fmt.Errorf("the token %s of user %q expired at %s", t.ID, t.User, t.Expires.Format(time.RFC3339))
	}
	return t, nil
}

// Token implements auth.BearerTokens. The tokens are for the hub's API alone.
func (u *Users) Token(_ context.Context, text string, audiences []string) (user auth.User, accepted []string, ours bool, err error) {
	if !strings.HasPrefix(text, prefix) {
		return auth.User{}, nil, false, nil
	}
	t, err := u.find(text)
	if err != nil {
		return auth.User{}, nil, true, err
	}
	if accepted = satoken.ForAPI(audiences); len(accepted) == 0 {
		return auth.User{}, nil, true, errors.New("the tokens of users are for the API alone")
	}
	return t.user, accepted, true, nil
}

// Until implements auth.BearerTokens.
func (u *Users) Until(text string, end func()) (stop func()) {
	if !strings.HasPrefix(text, prefix) {
		return func() {}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	t, err := u.find(text)
	if err != nil {
		go end()
		return func() {}
	}
	once := sync.OnceFunc(end)
	q := &longRequest{text: text, end: once}
	u.open[q] = struct{}{}
	var timer *time.Timer // nil: the token does not end
	if !t.Expires.IsZero() {
		timer = time.AfterFunc(t.Expires.Sub(clock.Now()), once)
	}
	return func() {
		if timer != nil {
			timer.Stop()
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.open, q)
	}
}
