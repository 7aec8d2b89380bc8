// Package listroom bounds the lists that are worked on at a time: those in other forms than JSON, or in another version than the store's. Their
// objects are decoded and encoded while they are written, and leave garbage of several times their size.
//
//	read ─► room? ─ yes ──────────────────────────────────────┬─► write ─► give the room back
//	          └──── no: let go of it ─► turn ─► read it again ─┘
//
// Room is counted in bytes of the lists' JSON. Users take turns.
package listroom

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/fairqueue"
)

// In bytes of JSON. A list that is larger than its user's share has the whole share.
const (
	maxUser = 16 << 20
	maxAll  = 48 << 20
	// small is what is not counted.
	small = 64 << 10
)

// Room is for the lists of all users of one server. It is safe for concurrent use.
type Room struct {
	queue    fairqueue.Queue
	patience time.Duration
}

// New returns an empty Room in which a list waits as long as patience.
func New(patience time.Duration) *Room {
	return &Room{queue: fairqueue.Queue{Room: maxAll, Each: maxUser}, patience: patience}
}

// Read returns the list that read reads. One that finds no room is read again when it is the user's turn: what waits holds none of it. done
// must be called once the list has been written.
func (r *Room) Read(ctx context.Context, user string, read func() (*registry.ListResult, error)) (list *registry.ListResult, done func(), err error) {
	if list, err = read(); err != nil {
		return nil, nil, err
	}
	n := size(list)
	if n < small {
		return list, func() {}, nil
	}
	if release, ok := r.queue.TryN(user, n); ok {
		return list, release, nil
	}
	release, err := r.wait(ctx, user, n)
	if err != nil {
		return nil, nil, err
	}
	if list, err = read(); err != nil {
		release()
		return nil, nil, err
	}
	return list, release, nil
}

// Enter waits until a list that cannot be read again may be built. done must be called once it has been written.
func (r *Room) Enter(ctx context.Context, user string, list *registry.ListResult) (done func(), err error) {
	n := size(list)
	if n < small {
		return func() {}, nil
	}
	return r.wait(ctx, user, n)
}

// wait waits for room of n; where there is none in time it returns a 429.
func (r *Room) wait(ctx context.Context, user string, n int64) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	if release, err = r.queue.AcquireN(ctx, user, n); err != nil {
		return nil, apierrors.NewTooManyRequests("too many large lists at once; ask for fewer objects at a time (limit), or for JSON", 1)
	}
	return release, nil
}

func size(list *registry.ListResult) (n int64) {
	for _, item := range list.Items {
		n += int64(len(item))
	}
	return n
}
