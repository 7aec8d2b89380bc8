package media

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// maxCollections bounds the maps and arrays of one body in CBOR. An empty one is a byte, and half a hundred once it is decoded; those
// of a real object have twelve bytes and more each.
const maxCollections = 256 << 10

// CheckCBOR refuses a body in CBOR whose maps and arrays would take much more memory than the body has bytes. It decides nothing
// else: what is not well-formed is the decoder's.
func CheckCBOR(body []byte) error {
	collections := 0
	for len(body) > 0 {
		major, info := body[0]>>5, body[0]&31
		body = body[1:]
		n := 0 // bytes of the head's number
		if info >= 24 && info <= 27 {
			n = 1 << (info - 24)
		}
		if len(body) < n {
			return nil
		}
		value := uint64(info)
		if n > 0 {
			value = 0
			for _, b := range body[:n] {
				value = value<<8 | uint64(b)
			}
			body = body[n:]
		}
		switch major {
		case 2, 3: // text and bytes; those of no known length (31) are pieces with heads of their own
			if info == 31 {
				continue
			}
			if value > uint64(len(body)) {
				return nil
			}
			body = body[value:]
		case 4, 5:
			if collections++; collections > maxCollections {
				return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("a body in CBOR may have %d maps and arrays", maxCollections))
			}
		}
	}
	return nil
}
