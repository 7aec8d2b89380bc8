package cruntime

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that a Runtime returns, to be found with errors.Is.
var (
	// ErrNotFound says that the named image, container or sandbox is not there.
	ErrNotFound = errors.New("not found")
	// ErrUnreachable says that the registry did not answer. An image that is present already may be used instead.
	ErrUnreachable = errors.New("registry unreachable")
	// ErrConfig says that the container can never run as it is described; the message says what to change.
	ErrConfig = errors.New("container configuration")
)

// PlatformError is an image that exists, but only for other machines than this one.
type PlatformError struct {
	Image   string
	Have    []string // platforms that it exists for: "arm64", "arm/v7"
	Machine string   // this machine's
}

func (e *PlatformError) Error() string {
	return fmt.Sprintf("image %q exists for %s, not for this node's %s; delete the pod to have it placed on a node that fits, or build the image for %s too",
		e.Image, strings.Join(e.Have, ", "), e.Machine, e.Machine)
}
