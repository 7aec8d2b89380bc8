package podset

import (
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/control"
)

// These bound how long a refusal holds. The time doubles with each that follows.
const (
	firstRefusal   = time.Second
	longestRefusal = time.Minute
)

// refusals holds which owners were refused a pod, because there is no room or no permission. Trying again at once does not help,
// and each change of one of their pods queues them again, thousands of times. The zero value is ready to use.
type refusals struct {
	mu sync.Mutex
	m  map[control.Key]*refusal // by owner; an entry goes with the refusal or the owner. Guarded by mu
}

type refusal struct {
	err        error
	generation int64 // of the owner: after a change of its spec it is tried again at once
	n          int   // how many in a row
	until      time.Time
}

// note records how a creation went. Nil, or an error that is no refusal, ends the refusal.
func (r *refusals) note(key control.Key, generation int64, err error, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil || !refuses(err) {
		delete(r.m, key)
		return
	}
	if r.m == nil {
		r.m = map[control.Key]*refusal{}
	}
	was := r.m[key]
	if was == nil || was.generation != generation {
		was = &refusal{generation: generation}
		r.m[key] = was
	}
	was.err = err
	was.until = now.Add(min(longestRefusal, firstRefusal<<min(was.n, 10)))
	was.n++
}

// standing returns how long a refusal still holds for key, and its error.
func (r *refusals) standing(key control.Key, generation int64, now time.Time) (wait time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.m[key]
	if was == nil || was.generation != generation || !now.Before(was.until) {
		return 0, nil
	}
	return was.until.Sub(now), was.err
}

func (r *refusals) forget(key control.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.m, key)
}

// refuses reports whether err is a refusal, which holds for a while, and not a failure.
func refuses(err error) bool {
	status, ok := err.(apierrors.APIStatus)
	return ok && (status.Status().Code == http.StatusForbidden || status.Status().Code == http.StatusInsufficientStorage)
}
