package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Times of the pipe.
const (
	ackDelay   = 150 * time.Millisecond // an acknowledgement waits this long for data to ride on
	resendMin  = 2 * time.Second
	resendIni  = 4 * time.Second // before a round trip has been measured
	resendMax  = 60 * time.Second
	GiveUp     = 3 * time.Minute // without any acknowledgement of a frame in flight the pipe is dead
	ackNonce   = 1 << 63         // nonces of frameAck: apart from those of frameData
	bufferMore = 512             // frame numbers this far ahead are not looked at
)

// ErrDead is a pipe whose peer has acknowledged nothing for GiveUp.
var ErrDead = errors.New("no acknowledgement from the peer")

// sealer is the one half of noise.Cipher; opener the other. Nonces are given, not counted, because frames may be lost.
type sealer interface {
	Encrypt(out []byte, n uint64, ad, plaintext []byte) []byte
}
type opener interface {
	Decrypt(out []byte, n uint64, ad, ciphertext []byte) ([]byte, error)
}

// Flags of a data frame's piece.
const (
	flagLast   byte = 1 // ends a message
	flagPacked byte = 2 // the message is compressed; the same on all its pieces
)

// Pipe carries messages in order, each exactly once, over frames that may be lost, repeated, delayed or reordered. It is
// symmetric, and pure: the caller gives it time and frames, and takes frames out with Flush.
//
// Every data frame has a number, which is its nonce. It is sealed once and resent as it was. The receiver passes pieces
// on strictly in order of their number, keeps at most Window frames that came early, and drops what it has had. An
// acknowledgement ("all below N") rides on every data frame, and goes alone when there is none.
type Pipe struct {
	tag  Tag
	seal sealer
	open opener
	// Limit of a received message, unpacked. MaxMessage unless the owner lowers it; at 0 no data is taken at all, only
	// acknowledgements.
	Limit int

	// Outwards. Invariant: len(flight) ≤ Window; flight[0].n == acked.
	queue   []piece  // sealed when there is room in flight
	flight  []flying // sent, not acknowledged
	next    uint64   // number of the next data frame
	acked   uint64   // all below are acknowledged
	rtt     time.Duration
	rto     time.Duration
	resend  time.Time // when to resend flight[0]; zero when nothing is in flight
	moved   time.Time // when flight[0] became the first
	nextAck uint64    // number of the next ack frame

	// Inwards. Invariant: early holds only numbers in (want, want+Window).
	want    uint64 // next data frame
	early   map[uint64][]byte
	partial []byte // pieces of an unfinished message
	ackSeen uint64 // ack frames below this are old
	ackDue  time.Time
	urgent  bool // acknowledge at once: the peer repeats itself
}

type piece struct {
	flags byte
	b     []byte
}

type flying struct {
	n     uint64
	frame []byte
	sent  time.Time
	again bool // resent: its acknowledgement measures nothing
}

func newPipe(tag Tag, seal sealer, open opener) *Pipe {
	return &Pipe{tag: tag, seal: seal, open: open, Limit: MaxMessage, rto: resendIni}
}

// Send queues a message. It is the caller's part to keep few of them waiting (see Backlog).
func (p *Pipe) Send(m Message) {
	b, packed := Encode(m), false
	if len(b)-packedBytes(m) >= packFrom {
		b, packed = pack(b)
	}
	var flags byte
	if packed {
		flags = flagPacked
	}
	for len(b) > pieceSize {
		p.queue = append(p.queue, piece{flags, b[:pieceSize]})
		b = b[pieceSize:]
	}
	p.queue = append(p.queue, piece{flags | flagLast, b})
}

// packedBytes returns how many bytes of a message are packed already.
func packedBytes(m Message) (n int) {
	if b, ok := m.(*Batch); ok {
		for _, r := range b.Rounds {
			n += len(r)
		}
	}
	return n
}

// Backlog is how many frames wait or are in flight.
func (p *Pipe) Backlog() int { return len(p.queue) + len(p.flight) }

// Unanswered is since when the first frame in flight has waited for its acknowledgement; zero when none is in flight.
func (p *Pipe) Unanswered() time.Time {
	if len(p.flight) == 0 {
		return time.Time{}
	}
	return p.moved
}

// Receive takes a frame of this session. It returns the messages that are now complete. A repeated or early frame is no
// error; ErrSeal means that the frame was not the peer's and had no effect; any other error ends the session.
func (p *Pipe) Receive(now time.Time, frame []byte) ([]Message, error) {
	head, n, sealed, err := splitHeader(frame)
	if err != nil {
		return nil, err
	}
	if frame[0] == frameAck {
		return nil, p.receiveAck(now, head, n, sealed)
	}
	if p.Limit == 0 {
		return nil, nil
	}
	if n < p.want || p.early[n] != nil {
		p.urgent = true // the peer may have missed our acknowledgement
		return nil, nil
	}
	if n >= p.want+bufferMore {
		return nil, nil
	}
	b, err := p.open.Decrypt(nil, n, head, sealed)
	if err != nil {
		return nil, fmt.Errorf("frame %d: %w", n, ErrSeal)
	}
	ack, l := binary.Uvarint(b)
	if l <= 0 || len(b) < l+1 || len(b) > l+1+pieceSize {
		return nil, fmt.Errorf("frame %d: %w", n, ErrFormat)
	}
	p.acknowledged(now, ack)
	if n > p.want {
		if n < p.want+Window {
			if p.early == nil {
				p.early = map[uint64][]byte{}
			}
			p.early[n] = b[l:]
		}
		p.urgent = true
		return nil, nil
	}
	var out []Message
	for b = b[l:]; b != nil; b = p.early[p.want] {
		delete(p.early, p.want)
		p.want++
		m, err := p.assemble(b[0], b[1:])
		if err != nil {
			return out, err
		}
		if m != nil {
			out = append(out, m)
		}
	}
	if p.ackDue.IsZero() {
		p.ackDue = now.Add(ackDelay)
	}
	return out, nil
}

// assemble adds a piece, and returns the message that it completes, if it does.
func (p *Pipe) assemble(flags byte, b []byte) (Message, error) {
	if len(p.partial)+len(b) > p.Limit {
		return nil, fmt.Errorf("message: %w: larger than %d bytes", ErrFormat, p.Limit)
	}
	if flags&flagLast == 0 {
		p.partial = append(p.partial, b...)
		return nil, nil
	}
	if p.partial != nil {
		b, p.partial = append(p.partial, b...), nil
	}
	if flags&flagPacked != 0 {
		var err error
		if b, err = unpack(b, p.Limit); err != nil {
			return nil, err
		}
	}
	return Decode(b)
}

func (p *Pipe) receiveAck(now time.Time, head []byte, n uint64, sealed []byte) error {
	if n < p.ackSeen {
		return nil
	}
	b, err := p.open.Decrypt(nil, n|ackNonce, head, sealed)
	if err != nil {
		return fmt.Errorf("ack %d: %w", n, ErrSeal)
	}
	p.ackSeen = n + 1
	ack, l := binary.Uvarint(b)
	if l <= 0 {
		return fmt.Errorf("ack %d: %w", n, ErrFormat)
	}
	p.acknowledged(now, ack)
	return nil
}

// acknowledged takes all frames below ack out of flight. A value beyond what was sent is ignored.
func (p *Pipe) acknowledged(now time.Time, ack uint64) {
	if ack <= p.acked || ack > p.next {
		return
	}
	done := int(ack - p.acked)
	if f := p.flight[done-1]; !f.again {
		rtt := now.Sub(f.sent)
		if p.rtt == 0 {
			p.rtt = max(rtt, 1)
		}
		p.rtt += (rtt - p.rtt) / 8
	}
	p.rto = resendIni
	if p.rtt > 0 {
		p.rto = min(max(resendMin, 4*p.rtt), resendMax)
	}
	p.flight = append(p.flight[:0], p.flight[done:]...)
	p.acked = ack
	p.moved = now
	p.resend = time.Time{}
	if len(p.flight) > 0 {
		// Counted from its own sending: when several were lost together, one round trip repairs each.
		p.resend = p.flight[0].sent.Add(p.rto)
	}
}

// Flush gives the frames to publish now: new ones as far as the window allows, the first unacknowledged one when its
// time has come (the receiver has most likely kept the others), and an acknowledgement that has waited long enough.
func (p *Pipe) Flush(now time.Time) ([][]byte, error) {
	var out [][]byte
	if len(p.flight) > 0 && !now.Before(p.resend) {
		if now.Sub(p.moved) >= GiveUp {
			return nil, ErrDead
		}
		f := &p.flight[0]
		f.again, f.sent = true, now
		p.rto = min(2*p.rto, resendMax)
		p.resend = now.Add(p.rto)
		out = append(out, f.frame)
	}
	for len(p.flight) < Window && len(p.queue) > 0 {
		x := p.queue[0]
		p.queue[0].b = nil
		p.queue = p.queue[1:]
		if len(p.flight) == 0 {
			p.moved, p.resend = now, now.Add(p.rto)
		}
		plain := binary.AppendUvarint(make([]byte, 0, len(x.b)+11), p.want)
		plain = append(append(plain, x.flags), x.b...)
		head := header(frameData, p.tag, p.next)
		frame := p.seal.Encrypt(append(make([]byte, 0, len(head)+len(plain)+16), head...), p.next, head, plain)
		p.flight = append(p.flight, flying{n: p.next, frame: frame, sent: now})
		p.next++
		p.ackDue, p.urgent = time.Time{}, false
		out = append(out, frame)
	}
	if len(p.queue) == 0 {
		p.queue = nil
	}
	if p.urgent || !p.ackDue.IsZero() && !now.Before(p.ackDue) {
		p.ackDue, p.urgent = time.Time{}, false
		head := header(frameAck, p.tag, p.nextAck)
		out = append(out, p.seal.Encrypt(append([]byte(nil), head...), p.nextAck|ackNonce, head, binary.AppendUvarint(nil, p.want)))
		p.nextAck++
	}
	return out, nil
}

// Wake is when Flush has something to do even if nothing else happens; zero: never.
func (p *Pipe) Wake() time.Time { return earliest(p.resend, p.ackDue) }

// earliest is the earlier of two times of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
