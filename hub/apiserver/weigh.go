package apiserver

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/apiserver/media"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/weight"
)

// Bounds of what bodies take in memory once they are decoded, in bytes. Validation, admission and encoding make copies, so that the
// hub grows by some times as much.
const (
	maxDecoded   = weight.Max // of one body, and of all of one user's that are worked on
	allDecoded   = 48 << 20   // of all
	smallDecoded = 16 << 10   // is not counted: the requests in flight are
)

// weigh refuses a body that would take too much memory once it is decoded as of, and waits until those that are worked on have left
// room for it. x.unweigh returns the room.
func (x *exchange) weigh(form string, body []byte, of *weight.Shape) error {
	var n int64
	var err error
	switch form {
	case media.CBOR:
		if err := media.CheckCBOR(body); err != nil {
			return err
		}
		n = weight.CBOR(body, of, maxDecoded)
	case media.Protobuf:
		n, err = weight.Protobuf(body, of, maxDecoded)
	default:
		n, err = weight.JSON(body, of, maxDecoded)
	}
	switch {
	case errors.Is(err, weight.ErrDeep):
		return apierrors.NewBadRequest("the body of the request cannot be decoded: " + err.Error())
	case n > maxDecoded:
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
			"a body may take %d bytes of memory, and this one of %d bytes would take more: it has too many objects and lists", maxDecoded, len(body)))
	case n < smallDecoded || x.room != nil:
		return nil
	}
	if x.room, err = x.s.budgets.decoded.AcquireN(x.ctx, x.user.Name, n); err != nil {
		return tooMany("too many large bodies are worked on at once; try again later")
	}
	return nil
}

// unweigh returns the room of the decoded body. It may be called more than once.
func (x *exchange) unweigh() {
	if x.room != nil {
		x.room()
		x.room = nil
	}
}

// Bounds of the lists that are built before they are written, in bytes of their JSON: in other forms than plain JSON, which is written
// item by item. One that is larger than its user's share has the whole share.
const (
	maxBuilt   = 16 << 20 // of one user
	allBuilt   = 48 << 20 // of all
	smallBuilt = 64 << 10 // is not counted
)

// readList reads a list. One that is built before it is written waits for its turn, and is read again then: what waits holds none of it.
// done must be called when it has been written.
func (x *exchange) readList(out media.Form, opts *metav1.ListOptions) (res *registry.ListResult, done func(), err error) {
	if res, err = x.s.Verbs.List(x.ctx, x.t, opts); err != nil {
		return nil, nil, err
	}
	n := builtSize(out, res)
	if n == 0 {
		return res, func() {}, nil
	}
	done, ok := x.s.budgets.built.TryN(x.user.Name, n)
	if ok {
		return res, done, nil
	}
	if done, err = x.buildTurn(n); err != nil {
		return nil, nil, err
	}
	if res, err = x.s.Verbs.List(x.ctx, x.t, opts); err != nil {
		done()
	}
	return res, done, err
}

// builtSize returns the bytes that res counts in the budget of lists that are built.
func builtSize(out media.Form, res *registry.ListResult) (n int64) {
	if out.Media == media.JSON && !out.Pretty && out.As == "" {
		return 0
	}
	for _, item := range res.Items {
		n += int64(len(item))
	}
	if n < smallBuilt {
		return 0
	}
	return n
}

// buildTurn waits until a list of n bytes may be built. done must be called when it has been written.
func (x *exchange) buildTurn(n int64) (done func(), err error) {
	if n == 0 {
		return func() {}, nil
	}
	ctx, cancel := context.WithTimeout(x.ctx, requestTimeout)
	defer cancel()
	done, err = x.s.budgets.built.AcquireN(ctx, x.user.Name, n)
	if err != nil {
		return nil, tooMany("too many large lists at once; ask for fewer objects at a time (limit), or for JSON")
	}
	return done, nil
}
