package proxy

import (
	"io"
	"net/http"
	"time"
)

// bodyPause is how long a client may pause within the body of its request: a connection to the workload waits meanwhile.
const bodyPause = 5 * time.Minute

// body is a request's body that has no length limit and no time limit but that of a pause.
type body struct {
	io.ReadCloser
	c *http.ResponseController
}

func newBody(w http.ResponseWriter, b io.ReadCloser) *body {
	return &body{b, http.NewResponseController(w)}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	_ = b.c.SetReadDeadline(time.Now().Add(bodyPause)) // only a test's connection has none
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF { // from now on net/http reads on, to see when the client goes: that takes as long as the answer
		_ = b.c.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error { return b.ReadCloser.Close() }
