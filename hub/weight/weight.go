// Package weight says what a body takes in memory once it is decoded, before it is decoded. A body is bounded in bytes, but two bytes of it
// can be an entry of a list that takes a thousand: `[{},{},…]` where containers belong. So the bound that holds is this one.
//
//	body ─► tokens (JSON, CBOR, protobuf) ─► Shape of the Go type ─► bytes
//
// It goes by the type that each part is decoded into: what the decoder skips weighs nothing, what no type describes weighs what Go's
// maps and interfaces do. It decides nothing else: what is malformed is the decoder's. All of it is quick, and takes no memory to
// speak of.
package weight

import (
	"errors"
	"fmt"
)

const (
	// Bytes of a value that no type describes, from measurements of Go 1.26's maps.
	entryOfMap  = 96  // key, value, and the map's share
	entryOfList = 40  // an interface and what it points to, with the list's growth
	object      = 336 // a map with one to eight entries
	emptyObject = 64

	// text is what a string, number or pointer takes beside its bytes.
	text = 48
	// fault is what an entry of a typed list or map may cost in validation, which names what is wrong with each one.
	fault = 512

	// Max is what one object may take, in bytes. The largest definitions of the field take 13 MiB.
	Max = 32 << 20

	// MaxDepth is how deep objects and lists may be nested. Decoders, validation and copies recurse, and nothing stops them.
	MaxDepth = 1000
	// maxLoose is how deep they may be nested within a value that has an UnmarshalJSON of its own: such values read what is in
	// them again for each of themselves that is around it.
	maxLoose = 100
)

// ErrDeep is the error of a body that is nested deeper than MaxDepth.
var ErrDeep = errors.New("objects and lists are nested more than 1000 deep, or 100 within the items of a schema")

// scale adds up what a body weighs, token by token. Between tokens, next is the shape of the value that comes.
type scale struct {
	sum   int64
	stack []place // of the objects and lists that are open
	loose int     // how many of them are within a loose value
	next  *Shape  // nil: the decoder skips it
}

// place is an object or a list that is open.
type place struct {
	shape *Shape // nil: skipped
	list  bool
	empty bool // has had no entry yet
}

// open begins an object or a list, which value has counted.
func (s *scale) open(list bool) error {
	if len(s.stack) == MaxDepth || s.loose == maxLoose {
		return ErrDeep
	}
	s.stack = append(s.stack, place{shape: s.next, list: list, empty: true})
	if s.next != nil && s.next.loose {
		s.loose++
		s.sum += s.next.size
	}
	return nil
}

// close ends the innermost object or list.
func (s *scale) close() {
	if n := len(s.stack); n > 0 {
		if of := s.stack[n-1].shape; of != nil && of.loose {
			s.loose--
		}
		s.stack = s.stack[:n-1]
	}
}

// key begins an entry of the innermost object.
func (s *scale) key(name []byte) {
	n := len(s.stack)
	if n == 0 {
		return
	}
	p := &s.stack[n-1]
	first := p.empty
	p.empty = false
	switch of := p.shape; {
	case of == nil:
		s.next = nil
	case of == untyped:
		if s.next = untyped; first {
			s.sum += object - emptyObject
		}
		s.sum += entryOfMap
	case of.loose:
		s.next, s.sum = of, s.sum+of.size
	case of.fields != nil:
		s.next = of.fields[string(name)]
	default: // a map, or an object where none belongs
		if s.next = of.entry; s.next != nil {
			s.sum += 2*s.next.size + text + fault
		}
	}
}

// value begins a value: an entry of the innermost list, or what belongs to the key before. composite: an object or a list.
func (s *scale) value(composite bool) {
	if n := len(s.stack); n > 0 && s.stack[n-1].list {
		p := &s.stack[n-1]
		p.empty = false
		switch of := p.shape; {
		case of == nil:
			s.next = nil
		case of == untyped:
			s.next, s.sum = untyped, s.sum+entryOfList
		case of.loose:
			s.next, s.sum = of, s.sum+of.size
		default: // the list may have grown to twice of what it needs
			if s.next = of.entry; s.next != nil {
				s.sum += 2*s.next.size + fault
			}
		}
	}
	switch {
	case s.next == nil:
	case !composite:
		s.sum += text
	case s.next == untyped:
		s.sum += emptyObject
	default:
		s.sum += s.next.size
	}
}

// Check refuses JSON of another server that would take more than Max bytes once it is decoded as of, or is nested too deep.
func Check(text []byte, of *Shape) error {
	n, err := JSON(text, of, Max)
	if err == nil && n > Max {
		err = fmt.Errorf("an object may take %d bytes of memory, and this one of %d bytes would take more", Max, len(text))
	}
	return err
}
