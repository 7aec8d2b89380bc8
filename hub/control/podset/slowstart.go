package podset

import (
	"sync/atomic"

	"petrel.dev/petrel/hub/control"
)

// MaxBurst bounds what one reconcile creates or deletes, so that one owner of ten thousand pods does not hold up others.
const MaxBurst = 500

// slowStart calls one(0) to one(n-1) in batches of 1, 2, 4, ..., and begins no batch after one with an error: when the
// first fails, because of a quota for example, the others would too. Within a batch, those that have not begun when one is refused
// are left out.
func slowStart(n int, one func(i int) error) error {
	for done, batch := 0, 1; done < n; batch *= 2 {
		size := min(batch, n-done)
		var refused atomic.Bool
		if err := control.InParallel(size, func(i int) error {
			if refused.Load() {
				return nil
			}
			err := one(done + i)
			if refuses(err) {
				refused.Store(true)
			}
			return err
		}); err != nil {
			return err
		}
		done += size
	}
	return nil
}
