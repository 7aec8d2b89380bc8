package apiserver

import (
	"cmp"
	"fmt"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/apiserver/listroom"
	"petrel.dev/petrel/internal/fairqueue"
)

// Limits bound what all clients together use of the hub at one time. One user gets at most a third of each, so that there is room
// for others. Zero means the default.
type Limits struct {
	InFlight  int // short requests: 400
	Watches   int // 1,500
	Streams   int // logs, exec, attach, port-forward: 300
	BodyBytes int // bytes of request bodies that have arrived and are being worked on: 48 MiB

	BodyGrace     time.Duration // how long a body may take whatever its rate: 10 s
	WritePatience time.Duration // how long a client may take to read 16 KiB: 30 s
	Turn          time.Duration // how long a request waits for its turn, from when it came: 15 s, a quarter of upstream's longest request
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&l.InFlight, 400)
	set(&l.Watches, 1500)
	set(&l.Streams, 300)
	set(&l.BodyBytes, 48<<20)
	l.BodyGrace = cmp.Or(l.BodyGrace, 10*time.Second)
	l.WritePatience = cmp.Or(l.WritePatience, 30*time.Second)
	l.Turn = cmp.Or(l.Turn, 15*time.Second)
	return l
}

// quota shares one budget fairly. It is safe for concurrent use.
type quota struct {
	what  string // what is counted, for the text of a refusal
	total int    // does not change, as each
	each  int    // of one user

	mu   sync.Mutex
	used int            // guarded by mu
	by   map[string]int // by user's name, no zeros; guarded by mu
}

func newQuota(what string, total int) *quota {
	return &quota{what: what, total: total, each: max(1, total/3), by: map[string]int{}}
}

// take takes n for user, or returns why there is no room. give returns what take took.
func (q *quota) take(user string, n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.by[user]+n > q.each:
		return tooMany(fmt.Sprintf("too many %s of user %q at once: %d of %d are in use; try again when some have ended", q.what, cut(user, 253), q.by[user], q.each))
	case q.used+n > q.total:
		return tooMany(fmt.Sprintf("too many %s at once: %d of %d are in use; try again later", q.what, q.used, q.total))
	}
	q.used += n
	q.by[user] += n
	return nil
}

// give returns n that user has taken.
func (q *quota) give(user string, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used -= n
	if q.by[user] -= n; q.by[user] <= 0 {
		delete(q.by, user)
	}
}

// tooMany returns a 429 with Retry-After, which client-go obeys.
func tooMany(message string) error { return apierrors.NewTooManyRequests(message, 1) }

// tooSlow returns a 408: the client is asked to send faster, or less.
func tooSlow(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusRequestTimeout, Reason: metav1.StatusReasonTimeout, Message: message,
	}}
}

// budgets are the quotas of one server. The pointers do not change after newBudgets.
type budgets struct {
	short, watches, streams, bodies *quota
	// yaml has room for one body of the largest size: parsing takes some 200 times a body's size. Users take turns.
	yaml fairqueue.Queue
	// decoded has room for what bodies take once they are decoded, in bytes as hub/weight estimates them.
	decoded fairqueue.Queue
	// lists has room for lists whose objects are decoded while they are written.
	lists *listroom.Room
}

// newBudgets returns the budgets of limits, which must have their defaults filled in.
func newBudgets(l Limits) *budgets {
	return &budgets{
		short:   newQuota("requests", l.InFlight),
		watches: newQuota("watches", l.Watches),
		streams: newQuota("streams", l.Streams),
		bodies:  newQuota("bytes of request bodies", l.BodyBytes),
		decoded: fairqueue.Queue{Room: allDecoded, Each: maxDecoded},
		lists:   listroom.New(requestTimeout),
	}
}

// of returns the quota that x counts against.
func (b *budgets) of(x *exchange) *quota {
	switch {
	case x.verb == "watch":
		return b.watches
	case x.longRunning():
		return b.streams
	}
	return b.short
}
