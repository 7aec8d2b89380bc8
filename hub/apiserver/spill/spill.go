// Package spill has a writer that holds what is written to it for as long as that is little: an answer whose size is not known before is
// sent with its length when it is small, or is still an error, and is never in memory as a whole when it is large.
//
//	write ─► held, up to Limit ─ full ─► Over ─► everything goes on to what it returns
//	                           └ ended ─► Held
package spill

import (
	"bytes"
	"io"
)

// Writer is one answer. It is not safe for concurrent use.
type Writer struct {
	// Limit is how many bytes are held. Set before the first Write.
	Limit int
	// Over returns where all goes once it is more than Limit. It is called once at most. Set before the first Write.
	Over func() io.Writer

	held bytes.Buffer // empty once to is set
	to   io.Writer    // nil until Over was called
}

// Write implements io.Writer.
func (w *Writer) Write(b []byte) (int, error) {
	if w.to == nil {
		if w.held.Len()+len(b) <= w.Limit {
			return w.held.Write(b)
		}
		w.to = w.Over()
		held := w.held.Bytes()
		w.held = bytes.Buffer{}
		if _, err := w.to.Write(held); err != nil {
			return 0, err
		}
	}
	return w.to.Write(b)
}

// Held returns what was written; ok is false when it was more than Limit, and has gone on.
func (w *Writer) Held() (b []byte, ok bool) { return w.held.Bytes(), w.to == nil }
