package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/apiserver/podstream"
	"petrel.dev/petrel/hub/audit"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/auth/impersonate"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/contain"
)

// exchangeKey is the key of the exchange in a request's context; filters sets it for every request.
type exchangeKey struct{}

func exchangeFrom(r *http.Request) *exchange {
	return r.Context().Value(exchangeKey{}).(*exchange)
}

// filters wraps next in what happens to every request, outermost first: recover and log, then limit, then authenticate and
// authorize.
func (s *server) filters(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		x := &exchange{s: s, query: r.URL.Query()}
		out := &response{ResponseWriter: w, patience: s.Limits.WritePatience}
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		x.w, x.r, x.ctx = out, r, r.Context()
		defer s.finish(x, out, began)
		out.Header().Set("Cache-Control", "no-cache, private")

		p := segments(r.URL.Path)
		x.t, x.sub, x.verb, _ = s.target(p, r.Method, x.query)
		if x.verb == "" {
			x.verb = verbOf(r.Method, true, false, nil)
			x.t = resource.Target{}
		}
		if x.remoteOf = s.remote(p); x.remoteOf != nil {
			x.t, x.sub = resource.Target{}, nil
			if a := x.attributes(); a.Resource {
				x.verb = a.Verb
			}
		}
		out.long = x.longRunning()
		if out.long && x.verb != "watch" {
			out.patience = podstream.Patience
		}
		if r.ContentLength != 0 {
			x.bodyUntil(began.Add(s.Limits.BodyGrace)) // also for those who are refused: net/http reads their bodies before it answers
		}
		if len(p) > 0 && isHealthPath(p[0]) && !impersonate.Asked(r.Header) {
			// Health must be answered above all when the hub is busy.
			x.began(auth.Anonymous, began)
			next.ServeHTTP(out, r)
			return
		}
		ctx, leave, err := s.enter(x, p, began)
		if err != nil {
			x.fail(err)
			return
		}
		defer leave()
		next.ServeHTTP(out, r.WithContext(ctx))
	})
}

// finish turns a panic into a 500, counts and logs.
func (s *server) finish(x *exchange, out *response, began time.Time) {
	if p := recover(); p != nil {
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			x.audit.Done(out.code, nil)
			panic(p)
		}
		x.audit.Done(http.StatusInternalServerError, p)
		contain.Go(s.Log, "hub/apiserver", x.r.Method+" "+cut(x.r.URL.Path, maxLoggedText), func() { panic(p) }) // counts, and logs the stack once
		if out.code != 0 || out.hijacked {
			panic(http.ErrAbortHandler) // the answer has begun, so only a broken connection can report the failure
		}
		x.fail(apierrors.NewInternalError(fmt.Errorf("this request caused a panic: %v", p)))
	}
	x.audit.Done(out.code, nil)
	took := time.Since(began)
	s.metrics.observe(x, out.code, took)
	s.Log.Debug("request", "verb", x.verb, "method", x.r.Method, "path", x.r.URL.Path, "code", out.code, "bytes", out.written, "took", took)
}

// enter takes a slot for a request, authenticates and authorizes it, and counts it against its user. leave returns what enter and
// the request's body took.
func (s *server) enter(x *exchange, p []string, began time.Time) (ctx context.Context, leave func(), err error) {
	select {
	case s.inFlight <- struct{}{}:
	default:
		s.metrics.rejected.Inc()
		return nil, nil, tooMany("Too many requests, please try again later.")
	}
	place := &place{s: s, x: x, slot: true}
	entered := false
	defer func() {
		if !entered { // refused: before the answer, which a client may be slow to read. Or a panic: others need the room.
			place.leave()
		}
	}()
	ctx, err = s.admit(x, place, p, began)
	if err != nil {
		return nil, nil, err
	}
	if q := s.budgets.of(x); !x.classed || q != s.budgets.short { // requests with seats are bounded by those
		if err := q.take(x.user.Name, 1); err != nil {
			s.metrics.rejected.Inc()
			return nil, nil, err
		}
		place.quota = q
	}
	if x.longRunning() {
		if x.sub == nil || !x.sub.Proxy { // a proxy's body goes on as it comes
			if _, err := x.readBody(); err != nil { // there is none, but from strange clients
				return nil, nil, err
			}
		}
		place.release() // watches and streams have a budget of their own
		ctx = place.untilRevoked(ctx)
	}
	entered = true
	return ctx, place.leave, nil
}

// place is what a request takes of the server's budgets. It is owned by the request's goroutine.
type place struct {
	s     *server
	x     *exchange
	slot  bool   // it has one of s.inFlight
	quota *quota // that counts it; nil: none yet
	end   func() // of a long request: frees its context; nil: none yet
}

// untilRevoked returns a context that also ends when the credentials of the request are revoked.
func (p *place) untilRevoked(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := p.s.Authenticator.Until(p.x.r, func() { cancel(errRevoked) })
	p.end = func() { stop(); cancel(nil) }
	p.x.ctx = ctx
	return ctx
}

// release returns the slot early, for requests that go on for long. It may be called more than once.
func (p *place) release() {
	if p.slot {
		p.slot = false
		<-p.s.inFlight
	}
}

// leave returns everything. It is called once.
func (p *place) leave() {
	if p.end != nil {
		p.end()
	}
	if p.quota != nil {
		p.quota.give(p.x.user.Name, 1)
	}
	p.x.seat.Leave()
	p.x.unweigh()
	if p.x.held > 0 {
		p.s.budgets.bodies.give(p.x.user.Name, p.x.held)
	}
	p.release()
}

// longRunning reports whether the request is a watch or a stream, of this server or one behind it: it has a budget of its own and no
// time limit.
func (x *exchange) longRunning() bool {
	return x.verb == "watch" || x.sub != nil && x.sub.Connect || x.remoteOf != nil && x.r.Header.Get("Upgrade") != ""
}

// open reports whether a path is answered without credentials: load balancers and scripts that check health have none.
func open(p []string) bool {
	return len(p) > 0 && (isHealthPath(p[0]) || len(p) == 1 && p[0] == "version")
}

// admit authenticates and authorizes a request that came at began, and waits for its turn in between: also to refuse is work. The context
// that it returns has the user.
func (s *server) admit(x *exchange, place *place, p []string, began time.Time) (context.Context, error) {
	if open(p) && !impersonate.Asked(x.r.Header) {
		x.user = auth.Anonymous
		x.began(x.user, began)
		return x.ctx, s.turn(x, place, &x.user, x.attributes(), began)
	}
	user, ok, err := s.Authenticator.Authenticate(x.r)
	if err != nil {
		s.refused(x.r, err.Error())
	}
	if err != nil || !ok {
		s.Audit.Refuse(x.w, x.r, began, x.audited())
		return nil, apierrors.NewUnauthorized("Unauthorized")
	}
	if s.Known != nil {
		s.Known(x.ctx, user.Name)
	}
	x.user = user
	x.began(user, began)
	if err := x.crossSite(); err != nil {
		return nil, err
	}
	a := x.attributes()
	if user, err = impersonate.User(x.ctx, s.Authorizer, user, a, x.r.Header); err != nil {
		return nil, err
	}
	if user.ImpersonatedBy != nil {
		x.audit.Impersonate(user)
	}
	if err := s.turn(x, place, &user, a, began); err != nil || open(p) {
		return auth.WithUser(x.ctx, user), err
	}
	reason, err := s.authorize(x.ctx, user, a)
	x.audit.Decide(err == nil, reason)
	if err != nil {
		return nil, err
	}
	return auth.WithUser(x.ctx, user), nil
}

// authorize refuses what user may not do. The reason is the authorizer's, for either decision.
func (s *server) authorize(ctx context.Context, user auth.User, a auth.Attributes) (reason string, err error) {
	allowed, reason, err := s.Authorizer.Authorize(ctx, user, a)
	if err != nil {
		return reason, apierrors.NewInternalError(fmt.Errorf("authorize: %w", err))
	}
	if !allowed {
		return reason, auth.Forbidden(user, a, reason)
	}
	return reason, nil
}

// refusalLog bounds what clients without credentials can put into the log: one line each refusalPause, with how many were left
// out.
type refusalLog struct {
	mu      sync.Mutex
	next    time.Time // when the next line may be logged; guarded by mu
	skipped int       // since the last line; guarded by mu
}

const (
	refusalPause  = 10 * time.Second
	maxLoggedText = 256 // bytes
)

// refused logs why credentials were refused, which the client does not learn.
func (s *server) refused(r *http.Request, reason string) {
	l, now := &s.refusals, time.Now()
	l.mu.Lock()
	quiet := now.Before(l.next)
	skipped := l.skipped
	if quiet {
		l.skipped++
	} else {
		l.skipped, l.next = 0, now.Add(refusalPause)
	}
	l.mu.Unlock()
	if !quiet {
		s.Log.Info("credentials refused", "from", r.RemoteAddr, "reason", strconv.QuoteToASCII(cut(reason, maxLoggedText)), "notLogged", skipped)
	}
}

// audited returns what the request is about, for the audit log: the verb of a stream is that of its method, as upstream's.
func (x *exchange) audited() auth.Attributes {
	a := x.attributes()
	if a.Resource {
		a.Verb = x.verb
	}
	return a
}

// began begins to record a request of u, if the audit policy asks for it.
func (x *exchange) began(u auth.User, at time.Time) {
	if x.s.Audit != nil {
		x.audit = x.s.Audit.Begin(x.w, x.r, at, u, x.audited())
		x.ctx = audit.WithRequest(x.ctx, x.audit)
		if out, ok := x.w.(*response); ok && out.long {
			out.onHeader = x.audit.Start
		}
	}
}

// cut bounds text that a client sent before it goes into an answer or the log. max is bytes.
func cut(s string, max int) string {
	if len(s) <= max {
		return s
	}
	return strings.ToValidUTF8(s[:max], "") + "..."
}
