package apiserver

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/apiserver/media"
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
