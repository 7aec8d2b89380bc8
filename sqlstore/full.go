package sqlstore

import "fmt"

// FullError says that the store takes nothing just now that makes it grow, or that makes one tenant grow. Deletions, changes that make objects smaller and
// Ops with Frees are taken all the same.
type FullError struct {
	// Bytes is what the store's objects take, Limit what they may take. Limit is 0 when it is the disk that is full.
	Bytes, Limit int64
	Path         string
	// Tenant is set when the store has room and only this tenant, whose Bytes and Limit these are, has its share of it.
	Tenant string
}

func (e *FullError) Error() string {
	if e.Tenant != "" {
		return fmt.Sprintf("%q holds %s of objects and may hold %s, so that the others have room too: only deletions, and changes that make objects smaller, are accepted in it; delete objects of it, or raise the store's limit",
			e.Tenant, bytesText(e.Bytes), bytesText(e.Limit))
	}
	if e.Limit > 0 {
		return fmt.Sprintf("the store holds %s of objects and may hold %s: only deletions, and changes that make objects smaller, are accepted; delete objects, or raise the store's limit",
			bytesText(e.Bytes), bytesText(e.Limit))
	}
	return fmt.Sprintf("the disk of %s is full: only deletions, and changes that make objects smaller, are accepted until there is room on it", e.Path)
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
