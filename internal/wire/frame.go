package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Limits of the protocol.
const (
	MaxFrame   = 100 << 10 // bytes of any frame, so that brokers with a 128 KiB limit pass it
	pieceSize  = 16 << 10  // bytes of a message in one frame
	MaxMessage = 16 << 20  // bytes of a message, unpacked
	Window     = 16        // frames in flight in one direction
)

// Frame types. A frame is type, session tag (4 bytes), and what the type says.
const (
	frameKnock     byte = 1 // Noise message 1
	frameChallenge byte = 2 // Noise message 2
	frameHello     byte = 3 // Noise message 3
	frameData      byte = 4 // number (varint), sealed{ack (varint), flags, piece of a message}
	frameAck       byte = 5 // number of its own space (varint), sealed{ack (varint)}
	frameNudge     byte = 6 // nothing: "I do not know this session"; tag 0: "I have just started". Not sealed, a hint only
	frameLive      byte = 7 // 16 secret bytes (none before version 2): "this connection is gone". Not sealed
)

// Tag distinguishes the sessions of one node, so that a frame of another one is dropped without opening it. The agent
// draws it at random for each connection. It authenticates nothing.
type Tag [4]byte

// FrameType is what a frame is, for the side that has to route it.
type FrameType byte

const (
	FrameOther     FrameType = iota // sealed: for the session with its tag
	FrameKnock                      // starts a session
	FrameChallenge                  // answers a knock
	FrameHello                      // ends a handshake
	FrameNudge                      // the hub does not know the session
	FrameLive                       // the connection is gone
)

// Peek returns a frame's type and session without opening it.
func Peek(frame []byte) (FrameType, Tag, error) {
	if len(frame) < 5 || len(frame) > MaxFrame {
		return 0, Tag{}, fmt.Errorf("frame of %d bytes: %w", len(frame), ErrFormat)
	}
	tag := Tag(frame[1:5])
	switch frame[0] {
	case frameData, frameAck:
		return FrameOther, tag, nil
	case frameKnock:
		return FrameKnock, tag, nil
	case frameChallenge:
		return FrameChallenge, tag, nil
	case frameHello:
		return FrameHello, tag, nil
	case frameNudge:
		return FrameNudge, tag, nil
	case frameLive:
		return FrameLive, tag, nil
	}
	return 0, Tag{}, fmt.Errorf("frame type %d: %w", frame[0], ErrFormat)
}

// NudgeFrame says to a node that the hub does not know its session; the zero Tag says that the hub has just started.
func NudgeFrame(tag Tag) []byte { return append([]byte{frameNudge}, tag[:]...) }

// LastWords is the secret in a connection's last words. The hello has its hash, so that the words of another are not taken
// for the device's. The broker knows the secret, and could as well hang up.
type LastWords [16]byte

// Hash is what the hello says of the secret.
func (l LastWords) Hash() [32]byte { return sha256.Sum256(l[:]) }

// LiveFrame says that the connection of a session is gone.
func LiveFrame(tag Tag, secret LastWords) []byte {
	return append(append([]byte{frameLive}, tag[:]...), secret[:]...)
}

// LastWordsMatch reports whether a live frame is of the device whose hello had hash. A hello of version 1 had none.
func LastWordsMatch(frame []byte, hash [32]byte) bool {
	if hash == ([32]byte{}) {
		return true
	}
	return len(frame) == 5+len(LastWords{}) && LastWords(frame[5:]).Hash() == hash
}

// header starts a numbered frame.
func header(typ byte, tag Tag, n uint64) []byte {
	b := make([]byte, 0, 16)
	b = append(b, typ)
	b = append(b, tag[:]...)
	return binary.AppendUvarint(b, n)
}

// splitHeader takes a numbered frame apart into its header (authenticated), number and sealed rest.
func splitHeader(frame []byte) (head []byte, n uint64, sealed []byte, err error) {
	if len(frame) < 6 {
		return nil, 0, nil, fmt.Errorf("numbered frame: %w", ErrFormat)
	}
	n, l := binary.Uvarint(frame[5:])
	if l <= 0 {
		return nil, 0, nil, fmt.Errorf("frame number: %w", ErrFormat)
	}
	return frame[:5+l], n, frame[5+l:], nil
}
