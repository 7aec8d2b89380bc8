// Package clock returns the time as far as it can be trusted. Boards without a clock of their own start in 1970; what expires
// must not be good again, or be over before it began, because of that.
package clock

import "time"

// epoch is a day on which this program already existed. A clock that shows an earlier time is wrong.
var epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// Sane returns t, or epoch when t cannot be right.
func Sane(t time.Time) time.Time {
	if t.Before(epoch) {
		return epoch
	}
	return t
}

// Now returns the time, or epoch when the machine's clock cannot be right.
func Now() time.Time { return Sane(time.Now()) }
