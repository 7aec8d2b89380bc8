package sqlstore

import "context"

// Sealing is a Store that keeps some of its values encrypted, and can leave them so in a page: for those who need little of a long list in
// clear at a time.
type Sealing interface {
	Store
	// ListSealed is List with values as they are kept. open is nil when they are readable as they are.
	ListSealed(ctx context.Context, prefix, after string, limit int, at Revision) (p Page, open Opener, err error)
}

// Opener returns the value of an entry in clear, of its page and of others as of the same revision; it is the caller's. An error means that
// the value is damaged or was replaced.
type Opener func(Entry) ([]byte, error)

// ListSealed is s.List, with values left as they are kept where s can do that.
func ListSealed(ctx context.Context, s Store, prefix, after string, limit int, at Revision) (p Page, open Opener, err error) {
	if sealing, ok := s.(Sealing); ok {
		return sealing.ListSealed(ctx, prefix, after, limit, at)
	}
	p, err = s.List(ctx, prefix, after, limit, at)
	return p, nil, err
}
