package apiserver

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// maxBody bounds a request's body: Kubernetes' own limit, so the same manifests pass.
const maxBody = 3 << 20

// A body holds a slot and memory of its user while it arrives, so its rate has a bound: any for Limits.BodyGrace, then minBodyRate
// at least, which a phone on a 2G network has. The time that the request's work may take begins when the body has arrived.
const (
	minBodyRate = 1 << 10 // bytes a second
	firstPiece  = 64 << 10
)

// readBody returns the whole body, or an error when it is too large or arrives too slowly. Memory is allocated for what has
// arrived, not for the announced length, and counts against the user until the request ends.
func (x *exchange) readBody() ([]byte, error) {
	r := x.r
	if r.ContentLength > maxBody {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, nil
	}
	began := time.Now()
	body := http.MaxBytesReader(x.w, r.Body, maxBody)
	size := firstPiece
	if n := r.ContentLength; n > 0 {
		size = int(min(n, firstPiece))
	}
	if err := x.holdBody(size); err != nil {
		return nil, err
	}
	buf := make([]byte, 0, size)
	for {
		if len(buf) > 0 {
			x.bodyUntil(began.Add(x.s.Limits.BodyGrace + time.Duration(len(buf))*time.Second/minBodyRate))
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) == r.ContentLength, err == io.EOF && r.ContentLength < 0:
			// After a failure the deadline stays: net/http reads on, before it answers, and must not wait either.
			// HTTP/2's is the stream's body's alone, which is over; setting it costs a message to the connection's goroutine.
			if r.ProtoMajor != 2 {
				x.bodyUntil(time.Time{})
			}
			return buf, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, tooSlow(fmt.Sprintf("the body of the request came too slowly: %d bytes in %s; send it at %d bytes a second at least",
				len(buf), time.Since(began).Round(time.Second), minBodyRate))
		case err != nil:
			var big *http.MaxBytesError
			if errors.As(err, &big) {
				return nil, err
			}
			return nil, apierrors.NewBadRequest("the body of the request could not be read: " + err.Error())
		}
		if len(buf) == cap(buf) {
			more := cap(buf)
			if left := r.ContentLength - int64(cap(buf)); r.ContentLength > 0 && left < int64(more) {
				more = int(left)
			}
			if err := x.holdBody(more); err != nil {
				return nil, err
			}
			buf = append(make([]byte, 0, cap(buf)+more), buf...)
		}
	}
}

// bodyUntil sets the deadline of reads from the client.
func (x *exchange) bodyUntil(t time.Time) {
	_ = http.NewResponseController(x.w).SetReadDeadline(t) // only a test's connection has none
}

// holdBody counts n more bytes of the body against the user, until the request ends.
func (x *exchange) holdBody(n int) error {
	if err := x.s.budgets.bodies.take(x.user.Name, n); err != nil {
		return err
	}
	x.held += n
	return nil
}
