package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ErrFormat is a message or frame that is not of this protocol.
var ErrFormat = errors.New("malformed")

// encoder appends to a byte slice: unsigned varints, fixed words, and byte strings with their length before them.
type encoder struct{ b []byte }

func (e *encoder) uint(v uint64)   { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) fixed(v uint64)  { e.b = binary.BigEndian.AppendUint64(e.b, v) }
func (e *encoder) bytes(v []byte)  { e.uint(uint64(len(v))); e.b = append(e.b, v...) }
func (e *encoder) string(v string) { e.uint(uint64(len(v))); e.b = append(e.b, v...) }
func (e *encoder) hash(h Hash)     { e.fixed(h[0]); e.fixed(h[1]) }

func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}

// decoder reads what encoder wrote. The first error sticks, and every later read gives zero. Byte strings alias the input.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = ErrFormat
	}
	d.b = nil
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) fixed() uint64 {
	v := d.take(8)
	if v == nil {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func (d *decoder) bytes() []byte  { return d.take(d.uint()) }
func (d *decoder) string() string { return string(d.bytes()) }

// laterString reads a field that an older version ends before.
func (d *decoder) laterString() string {
	if len(d.b) == 0 {
		return ""
	}
	return d.string()
}

func (d *decoder) hash() Hash { return Hash{d.fixed(), d.fixed()} }

func (d *decoder) bool() bool {
	v := d.take(1)
	return len(v) == 1 && v[0] == 1
}

// count reads the length of a list whose members take at least size bytes each, so that a lie cannot make us allocate.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

// kinds are the wire numbers of the kinds of version 1; 0 means that the name follows. Later kinds go by name, so that a peer
// a peer that does not know them can read the message all the same.
var kinds = []Kind{"", KindPod, KindConfigMap, KindSecret, KindToken, KindService, KindNode, KindPeer, KindPodStatus, KindNodeStatus, KindEvent}

func (e *encoder) id(id ID) {
	if i := slices.Index(kinds[1:], id.Kind); i >= 0 {
		e.uint(uint64(i + 1))
	} else {
		e.uint(0)
		e.string(string(id.Kind))
	}
	e.string(id.UID)
}

func (d *decoder) id() ID {
	var id ID
	switch n := d.uint(); {
	case n == 0:
		id.Kind = Kind(d.string())
	case n < uint64(len(kinds)):
		id.Kind = kinds[n]
	default:
		d.fail()
	}
	id.UID = d.string()
	return id
}

// Encode gives a message's bytes, uncompressed.
func Encode(m Message) []byte {
	e := encoder{b: []byte{m.tag()}}
	switch m := m.(type) {
	case *Welcome:
		e.uint(uint64(m.Version))
		e.string(m.Node)
		e.hash(m.Up)
		e.uint(m.Revision)
		e.uint(uint64(len(m.Addresses)))
		for _, a := range m.Addresses {
			e.string(a)
		}
		e.string(m.Settings.PodCIDR)
		e.string(m.Settings.ServiceCIDR)
		e.string(m.Settings.DNSAddress)
		e.string(m.Settings.ClusterDomain)
		e.string(m.History)
	case *Refuse:
		e.string(string(m.Code))
		e.string(m.Message)
		e.uint(m.Epoch)
		e.uint(m.Revision)
		e.string(m.History)
	case *Have:
		e.uint(uint64(len(m.Entries)))
		for _, x := range m.Entries {
			e.id(x.ID)
			e.fixed(x.Version)
		}
	case *Batch:
		e.batch(m)
	case *Applied:
		e.uint(m.Seq)
		e.hash(m.Hash)
	case *Open:
		e.string(m.Stream)
		e.b = append(e.b, m.Key[:]...)
		e.bytes(m.Request)
	case *Bye:
		e.string(string(m.Code))
		e.string(m.Message)
	case *Complete:
		e.hash(m.Hash)
	case *NeedMap, *Ping, *Pong:
	default:
		panic(fmt.Sprintf("wire: no encoding for %T", m))
	}
	return e.b
}

func (e *encoder) batch(m *Batch) {
	e.uint(m.Seq)
	e.uint(m.Revision)
	e.hash(m.Hash)
	e.uint(uint64(len(m.Puts)))
	for i := range m.Puts {
		p := &m.Puts[i]
		e.id(p.ID)
		e.fixed(p.Version)
		e.bool(p.Once)
		e.string(p.Namespace)
		e.string(p.Name)
		e.bytes(p.Data)
	}
	e.uint(uint64(len(m.Deletes)))
	for _, id := range m.Deletes {
		e.id(id)
	}
	if len(m.Rounds) > 0 {
		e.uint(uint64(len(m.Rounds)))
		for _, r := range m.Rounds {
			e.bytes(r)
		}
	}
}

// Decode is the reverse of Encode. The message may alias b.
func Decode(b []byte) (Message, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("message: %w: empty", ErrFormat)
	}
	d := &decoder{b: b[1:]}
	m := d.message(b[0])
	if m == nil {
		return nil, fmt.Errorf("message: %w: unknown number %d", ErrFormat, b[0])
	}
	if d.err != nil {
		return nil, fmt.Errorf("message %T: %w", m, d.err)
	}
	return m, nil
}

func (d *decoder) message(tag byte) Message {
	switch tag {
	case tagWelcome:
		m := &Welcome{Version: uint32(d.uint()), Node: d.string(), Up: d.hash(), Revision: d.uint()}
		for range d.count(1) {
			m.Addresses = append(m.Addresses, d.string())
		}
		m.Settings = Settings{PodCIDR: d.string(), ServiceCIDR: d.string(), DNSAddress: d.string(), ClusterDomain: d.string()}
		m.History = d.laterString()
		return m
	case tagRefuse:
		return &Refuse{Code: Code(d.string()), Message: d.string(), Epoch: d.uint(), Revision: d.uint(), History: d.laterString()}
	case tagNeedMap:
		return &NeedMap{}
	case tagHave:
		m := &Have{}
		if n := d.count(10); n > 0 {
			m.Entries = make([]Entry, n)
		}
		for i := range m.Entries {
			m.Entries[i] = Entry{ID: d.id(), Version: d.fixed()}
		}
		return m
	case tagBatch:
		return d.batch()
	case tagRounds:
		m := d.batch()
		for range d.count(1) {
			m.Rounds = append(m.Rounds, d.bytes())
		}
		if len(m.Rounds) == 0 {
			d.fail()
		}
		return m
	case tagApplied:
		return &Applied{Seq: d.uint(), Hash: d.hash()}
	case tagOpen:
		m := &Open{Stream: d.string()}
		copy(m.Key[:], d.take(32))
		m.Request = d.bytes()
		return m
	case tagPing:
		return &Ping{}
	case tagPong:
		return &Pong{}
	case tagComplete:
		return &Complete{Hash: d.hash()}
	case tagBye:
		return &Bye{Code: Code(d.string()), Message: d.string()}
	}
	return nil
}

func (d *decoder) batch() *Batch {
	m := &Batch{Seq: d.uint(), Revision: d.uint(), Hash: d.hash()}
	if n := d.count(14); n > 0 {
		m.Puts = make([]Put, n)
	}
	for i := range m.Puts {
		m.Puts[i] = Put{Object: Object{ID: d.id(), Version: d.fixed()}, Once: d.bool()}
		m.Puts[i].Namespace, m.Puts[i].Name, m.Puts[i].Data = d.string(), d.string(), d.bytes()
	}
	if n := d.count(2); n > 0 {
		m.Deletes = make([]ID, n)
	}
	for i := range m.Deletes {
		m.Deletes[i] = d.id()
	}
	return m
}

// encodeHello and decodeHello are for the handshake's third message.
func encodeHello(h *Hello) []byte {
	var e encoder
	e.uint(uint64(h.Version))
	e.uint(h.Epoch)
	e.b = append(e.b, h.Instance[:]...)
	e.b = append(e.b, h.TLSKey[:]...)
	e.string(h.Node)
	e.uint(uint64(len(h.Labels)))
	for _, k := range sortedKeys(h.Labels) {
		e.string(k)
		e.string(h.Labels[k])
	}
	e.bytes(h.Taints)
	e.string(h.TokenID)
	e.string(h.Secret)
	e.hash(h.Down)
	e.uint(h.Revision)
	e.uint(uint64(h.Keepalive))
	e.string(h.Build)
	e.b = append(e.b, h.Live[:]...)
	return e.b
}

func decodeHello(b []byte) (*Hello, error) {
	d := &decoder{b: b}
	h := &Hello{Version: uint32(d.uint()), Epoch: d.uint()}
	copy(h.Instance[:], d.take(8))
	copy(h.TLSKey[:], d.take(32))
	h.Node = d.string()
	if n := d.count(2); n > 0 {
		h.Labels = make(map[string]string, n)
		for range n {
			k := d.string()
			h.Labels[k] = d.string()
		}
	}
	h.Taints = d.bytes()
	h.TokenID, h.Secret = d.string(), d.string()
	h.Down, h.Revision = d.hash(), d.uint()
	h.Keepalive, h.Build = uint32(d.uint()), d.string()
	if len(d.b) > 0 { // since version 2
		copy(h.Live[:], d.take(32))
	}
	if d.err != nil {
		return nil, fmt.Errorf("hello: %w", d.err)
	}
	return h, nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
