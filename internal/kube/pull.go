package kube

import "time"

// PullsPath is where a node's own API (nodes/NAME/proxy) answers which images are on their way to it, as a list of ImagePull.
const PullsPath = "/pulls"

// ImagePull is an image on its way to a node.
type ImagePull struct {
	Image      string    `json:"image"`
	Pods       []string  `json:"pods"` // namespace/name of those that wait for it; none when it comes ahead of its pod
	Since      time.Time `json:"since"`
	Bytes      int64     `json:"bytes"`      // on the node already
	TotalBytes int64     `json:"totalBytes"` // 0: not known yet
}
