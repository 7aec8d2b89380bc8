package dispatch

import "time"

// bucket is a budget that fills with time. The zero value is full.
type bucket struct {
	used float64   // of the burst, 0 or more
	at   time.Time // when used was computed
}

// limit is how a bucket fills.
type limit struct {
	rate  float64 // a second
	burst float64
}

func (b *bucket) settle(now time.Time, l limit) {
	if b.used > 0 {
		b.used = max(0, b.used-max(0, now.Sub(b.at).Seconds())*l.rate)
	}
	b.at = now
}

// take takes n when it is there; what is larger than the burst needs a full bucket.
func (b *bucket) take(now time.Time, l limit, n float64) bool {
	b.settle(now, l)
	if b.used > 0 && b.used+n > l.burst {
		return false
	}
	b.used += n
	return true
}

// give returns n to the budget.
func (b *bucket) give(n float64) { b.used = max(0, b.used-n) }

// when returns the earliest time at which take of n succeeds.
func (b *bucket) when(now time.Time, l limit, n float64) time.Time {
	b.settle(now, l)
	over := min(b.used, b.used+n-l.burst)
	if over <= 0 {
		return now
	}
	return now.Add(time.Duration(over/l.rate*float64(time.Second)) + time.Millisecond)
}

// maxRefusalsLogged is how many refusals are logged in a minute; further ones are counted.
const maxRefusalsLogged = 20

// refusals decides which refusals of devices are logged: any client can cause as many as it likes.
type refusals struct {
	bucket bucket
	passed int // not logged since the last that was
}

// allow reports whether to log a refusal now, and how many were not logged before it.
func (r *refusals) allow(now time.Time) (ok bool, before int) {
	if !r.bucket.take(now, limit{rate: maxRefusalsLogged / 60.0, burst: maxRefusalsLogged}, 1) {
		r.passed++
		return false, 0
	}
	before, r.passed = r.passed, 0
	return true, before
}

// maxNameLogged bounds what is logged of a name that a device wants or reports: it may be the text of an unknown device. Bytes.
const maxNameLogged = 63

// shortName returns a name as it may be logged.
func shortName(name string) string {
	if len(name) > maxNameLogged {
		return name[:maxNameLogged] + "..."
	}
	return name
}
