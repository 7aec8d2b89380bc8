package kube

import (
	"math"
	"time"
)

// Seconds returns n seconds, or the longest Duration (292 years) of n's sign when n does not fit into one. Fields such as
// timeoutSeconds come from clients and may hold any int64; a plain multiplication makes negative times of large ones.
func Seconds[N ~int32 | ~int64](n N) time.Duration {
	const most = int64(math.MaxInt64 / time.Second)
	return time.Duration(min(max(int64(n), -most), most)) * time.Second
}
