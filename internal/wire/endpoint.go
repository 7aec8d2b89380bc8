package wire

import (
	"context"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Stream frames are: number (varint), sealed{type, channel, payload}. They travel once, at QoS 0: what a broker loses
// ends the stream. Each side may have streamWindow bytes of data under way; the other grants more as it reads.
const (
	streamData   byte = 1 // payload: bytes
	streamEOF    byte = 2 // no more data on the channel
	streamCredit byte = 3 // payload: varint, bytes granted
	streamEnd    byte = 4 // payload: JSON of StreamEnd; the last frame
	streamMark   byte = 5 // nothing; its number shows whether the frames before it arrived

	streamWindow = 128 << 10
	streamChunk  = 16 << 10
	streamGrant  = 32 << 10 // grant in portions of this

	// A loss shows by the next frame's number. After the last frame of a burst, a mark is that next frame.
	markAfter = 5 * time.Second
)

// ErrStreamCut is a stream that ended without its peer's word: the link was cut, or a frame got lost.
var ErrStreamCut = errors.New("stream cut")

// Endpoint is one end of a stream: it seals, numbers and credits. The owner passes it the topic's frames (Deliver) and
// calls Fail when the link is gone. The hub's end may send data only after the node's first grant, because the
// request to serve the stream travels another way and may come later than what is sent on the stream.
type Endpoint struct {
	aead    cipher.AEAD
	dir     byte // of what this end sends: 0 from the hub, 1 from the node
	publish func(frame []byte)

	sending sync.Mutex // one frame at a time leaves, in the order of numbers; guards the next three
	sendN   uint64
	mark    *time.Timer
	over    bool

	mu      sync.Mutex
	recvN   uint64
	credit  int // bytes this end may send
	queue   []streamItem
	queued  int       // bytes in queue and given out but not yet granted again
	granted int       // bytes read since the last grant
	ends    [4]uint64 // channels whose end has come, a bit each
	err     error
	closed  bool          // Close was called here
	parting []byte        // the last frame, when the peer may not have been there to receive it; nil once it was
	wake    chan struct{} // closed and replaced when anything changes
	done    chan struct{} // closed when err is set
}

type streamItem struct {
	ch   Channel
	data []byte
}

// NewEndpoint makes an end. publish must not block, and keeps the frame. Call Start once frames can be delivered to it.
func NewEndpoint(key [32]byte, hub bool, publish func(frame []byte)) *Endpoint {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err) // the key's length is right
	}
	e := &Endpoint{aead: aead, publish: publish, wake: make(chan struct{}), done: make(chan struct{})}
	if !hub {
		e.dir, e.credit = 1, streamWindow
	}
	return e
}

// Start gives the peer its first credit, if it waits for that.
func (e *Endpoint) Start() {
	if e.dir == 1 {
		e.frame(streamCredit, 0, binary.AppendUvarint(nil, streamWindow))
	}
}

func streamNonce(dir byte, n uint64) []byte {
	b := make([]byte, chacha20poly1305.NonceSize)
	b[0] = dir
	binary.BigEndian.PutUint64(b[4:], n)
	return b
}

// frame seals and publishes one.
func (e *Endpoint) frame(typ byte, ch Channel, payload []byte) {
	e.sending.Lock()
	defer e.sending.Unlock()
	if e.over {
		return
	}
	switch {
	case typ == streamEnd:
		e.over = true
		e.stopMark()
	case typ == streamMark:
	case e.mark == nil:
		e.mark = time.AfterFunc(markAfter, func() { e.frame(streamMark, 0, nil) })
	default:
		e.mark.Reset(markAfter)
	}
	n := e.sendN
	e.sendN++
	head := binary.AppendUvarint(make([]byte, 0, len(payload)+32), n)
	plain := append([]byte{typ, byte(ch)}, payload...)
	sealed := e.aead.Seal(head, streamNonce(e.dir, n), plain, head)
	if typ == streamEnd && n == 0 && e.dir == 0 {
		e.mu.Lock()
		e.parting = sealed
		e.mu.Unlock()
	}
	e.publish(sealed)
}

func (e *Endpoint) stopMark() {
	if e.mark != nil {
		e.mark.Stop()
	}
}

// Done is closed when the stream has ended for any reason.
func (e *Endpoint) Done() <-chan struct{} { return e.done }

func (e *Endpoint) changed() {
	close(e.wake)
	e.wake = make(chan struct{})
}

// Send is Stream.Send.
func (e *Endpoint) Send(ctx context.Context, ch Channel, data []byte) error {
	for len(data) > 0 {
		n, err := e.take(ctx, min(len(data), streamChunk))
		if err != nil {
			return err
		}
		e.frame(streamData, ch, data[:n])
		data = data[n:]
	}
	return nil
}

// take waits for credit, and takes up to n bytes of it.
func (e *Endpoint) take(ctx context.Context, n int) (int, error) {
	for {
		e.mu.Lock()
		if e.err != nil || e.closed {
			defer e.mu.Unlock()
			return 0, e.ended()
		}
		if e.credit > 0 {
			n = min(n, e.credit)
			e.credit -= n
			e.mu.Unlock()
			return n, nil
		}
		wake := e.wake
		e.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (e *Endpoint) ended() error {
	if e.err != nil {
		return e.err
	}
	return fmt.Errorf("%w: closed", ErrStreamCut)
}

// CloseSend is Stream.CloseSend.
func (e *Endpoint) CloseSend(ctx context.Context, ch Channel) error {
	e.mu.Lock()
	if e.err != nil || e.closed {
		defer e.mu.Unlock()
		return e.ended()
	}
	e.mu.Unlock()
	e.frame(streamEOF, ch, nil)
	return nil
}

// Recv is Stream.Recv.
func (e *Endpoint) Recv(ctx context.Context) (Channel, []byte, error) {
	for {
		e.mu.Lock()
		if len(e.queue) > 0 {
			it := e.queue[0]
			e.queue = e.queue[1:]
			grant := e.read(len(it.data))
			e.mu.Unlock()
			if grant > 0 {
				e.frame(streamCredit, 0, binary.AppendUvarint(nil, uint64(grant)))
			}
			return it.ch, it.data, nil
		}
		if e.err != nil || e.closed {
			defer e.mu.Unlock()
			return 0, nil, e.ended()
		}
		wake := e.wake
		e.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// read accounts n bytes read, and returns how much to grant now.
func (e *Endpoint) read(n int) int {
	e.granted += n
	if e.granted < streamGrant || e.err != nil || e.closed {
		return 0
	}
	g := e.granted
	e.granted = 0
	e.queued -= g
	return g
}

// Close is Stream.Close.
func (e *Endpoint) Close(end StreamEnd) error {
	e.mu.Lock()
	if e.closed || e.err != nil {
		e.closed = true
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	b, err := json.Marshal(end)
	if err != nil {
		return fmt.Errorf("stream end: %w", err)
	}
	e.frame(streamEnd, 0, b)
	e.Fail(fmt.Errorf("%w: closed", ErrStreamCut))
	return nil
}

// Fail ends the stream for a reason outside it. What has been received can still be read.
func (e *Endpoint) Fail(err error) {
	e.mu.Lock()
	e.fail(err)
	e.mu.Unlock()
	e.sending.Lock()
	defer e.sending.Unlock()
	e.over = true
	e.stopMark()
}

func (e *Endpoint) fail(err error) {
	if e.err == nil {
		e.err = err
		close(e.done)
		e.changed()
	}
}

// Unheard reports whether the stream was closed at the hub before the node had said anything: its request may still be on
// the way, and the node would serve a stream that nobody has. Go on delivering to it for a while.
func (e *Endpoint) Unheard() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.parting != nil
}

// part sends the last frame again when the node's first frame shows that it was not there to receive it. e.mu is held.
func (e *Endpoint) part(n uint64, head, sealed []byte) {
	if e.parting == nil || n != 0 {
		return
	}
	if _, err := e.aead.Open(nil, streamNonce(1-e.dir, n), sealed, head); err != nil {
		return
	}
	last := e.parting
	e.parting = nil
	e.publish(last)
}

// Deliver takes a frame from the peer. It does not block.
func (e *Endpoint) Deliver(frame []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, l := binary.Uvarint(frame)
	if l <= 0 || n < e.recvN {
		return
	}
	if e.err != nil || e.parting != nil {
		e.part(n, frame[:l], frame[l:])
		return
	}
	b, err := e.aead.Open(nil, streamNonce(1-e.dir, n), frame[l:], frame[:l])
	if err != nil || len(b) < 2 {
		return // not the peer's
	}
	if n > e.recvN {
		e.fail(fmt.Errorf("%w: frame %d came when %d was due", ErrStreamCut, n, e.recvN))
		return
	}
	e.recvN++
	ch, payload := Channel(b[1]), b[2:]
	switch b[0] {
	case streamData:
		if e.queued += len(payload); e.queued > streamWindow || len(payload) == 0 {
			e.fail(fmt.Errorf("%w: the peer sent more than it was granted", ErrStreamCut))
			return
		}
		e.queue = append(e.queue, streamItem{ch, payload})
	case streamMark:
	case streamEOF:
		// One a channel is all that it takes. More would grow the queue without a credit that bounds them.
		if bit := uint64(1) << (ch % 64); e.ends[ch/64]&bit == 0 {
			e.ends[ch/64] |= bit
			e.queue = append(e.queue, streamItem{ch, nil})
		}
	case streamCredit:
		g, l := binary.Uvarint(payload)
		if l <= 0 || g > streamWindow || e.credit+int(g) > 2*streamWindow {
			e.fail(fmt.Errorf("%w: credit of %d", ErrStreamCut, g))
			return
		}
		e.credit += int(g)
	case streamEnd:
		end := &StreamEnd{}
		if err := json.Unmarshal(payload, end); err != nil {
			e.fail(fmt.Errorf("%w: last frame: %v", ErrStreamCut, err))
			return
		}
		e.fail(end)
	}
	e.changed()
}
