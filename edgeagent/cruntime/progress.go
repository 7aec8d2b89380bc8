package cruntime

import "time"

// PullProgress is how far a pull that is on its way has come.
type PullProgress struct {
	Image string // as the pod names it
	Since time.Time
	// Bytes of TotalBytes are on the node, those that an earlier pull or another image has brought among them. Both are 0 while the
	// registry has not described the image yet. When they are equal the image is being unpacked.
	Bytes, TotalBytes int64
}
