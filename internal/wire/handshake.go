package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/flynn/noise"
)

// ErrSeal is a frame that was not sealed by the peer for this session: forged, of another session, or damaged.
var ErrSeal = errors.New("seal does not open")

// Noise_XK_25519_ChaChaPoly_BLAKE2s: the agent knows the hub's static key beforehand (from the join token); the agent's
// own static key and its hello travel in the third message, encrypted to the hub with forward secrecy and fresh against
// replay. ChaCha20 because a Pi has no AES instructions.
var suite = noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashBLAKE2s)

// Place is where a session takes place. Both sides mix it into the handshake, so that frames cannot be moved to another
// cluster, node or session.
type Place struct {
	Cluster string
	Node    string // id in topics
	Tag     Tag
}

func (p Place) prologue() []byte {
	return append([]byte("petrel/1\x00"+p.Cluster+"\x00"+p.Node+"\x00"), p.Tag[:]...)
}

func newHandshake(p Place, initiator bool, static StaticKey, peer *PublicKey, rand io.Reader) (*noise.HandshakeState, error) {
	cfg := noise.Config{
		CipherSuite: suite, Pattern: noise.HandshakeXK, Initiator: initiator,
		Prologue: p.prologue(), StaticKeypair: static.dh(), Random: rand,
	}
	if peer != nil {
		cfg.PeerStatic = peer[:]
	}
	hs, err := noise.NewHandshakeState(cfg)
	if err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return hs, nil
}

// Initiator is the agent's side of a handshake.
type Initiator struct {
	hs    *noise.HandshakeState
	place Place
	knock []byte
	hello []byte
}

// NewInitiator starts a handshake with the hub that has the given key. A nil rand is the system's.
func NewInitiator(p Place, static StaticKey, hub PublicKey, rand io.Reader) (*Initiator, error) {
	hs, err := newHandshake(p, true, static, &hub, rand)
	if err != nil {
		return nil, err
	}
	m, _, _, err := hs.WriteMessage(append([]byte{frameKnock}, p.Tag[:]...), nil)
	if err != nil {
		return nil, fmt.Errorf("knock: %w", err)
	}
	return &Initiator{hs: hs, place: p, knock: m}, nil
}

// Knock is the first frame; send it again while no challenge comes.
func (i *Initiator) Knock() []byte { return i.knock }

// Challenge takes the hub's answer and gives the hello frame, to be sent again while no welcome comes, and the pipe. A
// challenge that is not from the hub leaves the handshake as it was.
func (i *Initiator) Challenge(frame []byte, h *Hello) ([]byte, *Pipe, error) {
	if i.hello != nil {
		return nil, nil, fmt.Errorf("challenge: %w: a second one", ErrFormat)
	}
	if len(frame) < 5 {
		return nil, nil, fmt.Errorf("challenge: %w", ErrFormat)
	}
	if _, _, _, err := i.hs.ReadMessage(nil, frame[5:]); err != nil {
		return nil, nil, fmt.Errorf("challenge: %w: %v", ErrSeal, err)
	}
	m, up, down, err := i.hs.WriteMessage(append([]byte{frameHello}, i.place.Tag[:]...), encodeHello(h))
	if err != nil {
		return nil, nil, fmt.Errorf("hello: %w", err)
	}
	i.hello = m
	return m, newPipe(i.place.Tag, up.Cipher(), down.Cipher()), nil
}

// Responder is the hub's side of a handshake.
type Responder struct {
	hs        *noise.HandshakeState
	place     Place
	knock     []byte
	challenge []byte
}

// NewResponder takes a knock.
func NewResponder(p Place, static StaticKey, knock []byte, rand io.Reader) (*Responder, error) {
	hs, err := newHandshake(p, false, static, nil, rand)
	if err != nil {
		return nil, err
	}
	if len(knock) < 5 {
		return nil, fmt.Errorf("knock: %w", ErrFormat)
	}
	if _, _, _, err := hs.ReadMessage(nil, knock[5:]); err != nil {
		return nil, fmt.Errorf("knock: %w: %v", ErrSeal, err)
	}
	m, _, _, err := hs.WriteMessage(append([]byte{frameChallenge}, p.Tag[:]...), nil)
	if err != nil {
		return nil, fmt.Errorf("challenge: %w", err)
	}
	return &Responder{hs: hs, place: p, knock: bytes.Clone(knock), challenge: m}, nil
}

// Challenge is the answer to the knock. Again reports whether another knock frame is the same one repeated.
func (r *Responder) Challenge() []byte       { return r.challenge }
func (r *Responder) Again(knock []byte) bool { return bytes.Equal(r.knock, knock) }

// Hello takes the agent's third message: what it says, the static key it has proved to hold, and the pipe. A frame that
// is not from the knocking agent leaves the handshake as it was.
func (r *Responder) Hello(frame []byte) (*Hello, PublicKey, *Pipe, error) {
	if len(frame) < 5 {
		return nil, PublicKey{}, nil, fmt.Errorf("hello: %w", ErrFormat)
	}
	b, up, down, err := r.hs.ReadMessage(nil, frame[5:])
	if err != nil {
		return nil, PublicKey{}, nil, fmt.Errorf("hello: %w: %v", ErrSeal, err)
	}
	h, err := decodeHello(b)
	if err != nil {
		return nil, PublicKey{}, nil, err
	}
	return h, PublicKey(r.hs.PeerStatic()), newPipe(r.place.Tag, down.Cipher(), up.Cipher()), nil
}
