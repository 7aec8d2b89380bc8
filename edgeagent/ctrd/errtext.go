package ctrd

import (
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// meaning is what an error stands for that has no type of its own.
type meaning int

const (
	noPlatform   meaning = iota // the index of an image lists nothing for this machine
	registryBusy                // the registry cannot answer now, and may later
	loginRefused                // the registry wants another login
	shimGone                    // the pod's shim has just left, or is about to
	runcRefused                 // runc itself refuses: the container's own failure
)

// byText is the only place where errors are known by their text, because what made them gives no type across its API: the client
// library in the version of go.mod, and containerd and runc, whose errors arrive as strings over ttrpc. seen is the version that
// a text was last seen in; look here first when another version is taken in.
var byText = []struct {
	meaning    meaning
	text, seen string
}{
	{noPlatform, "no match for platform", "containerd client 2.4.2"},
	{registryBusy, "429 Too Many", "containerd client 2.4.2, HEAD of a blob"},
	{registryBusy, "500 Internal", "containerd client 2.4.2, HEAD of a blob"},
	{registryBusy, "502 Bad Gateway", "containerd client 2.4.2, HEAD of a blob"},
	{registryBusy, "503 Service", "containerd client 2.4.2, HEAD of a blob"},
	{registryBusy, "504 Gateway", "containerd client 2.4.2, HEAD of a blob"},
	{loginRefused, "401", "containerd client 2.4.2, HEAD of a blob"},
	{loginRefused, "403", "containerd client 2.4.2, HEAD of a blob"},
	{loginRefused, "authorization failed", "containerd client 2.4.2"},
	{shimGone, "ttrpc: closed", "containerd 1.6.20"},
	{shimGone, "connection refused", "containerd 1.6.20"},
	{shimGone, "connect: no such file", "containerd 1.6.20"},
	{shimGone, "shim", "containerd 1.6.20"},
	{runcRefused, "OCI runtime create failed", "containerd 1.6.20 with runc 1.1.5"},
}

// means reports whether an error has a meaning by its text.
func means(err error, m meaning) bool {
	for _, t := range byText {
		if t.meaning == m && strings.Contains(err.Error(), t.text) {
			return true
		}
	}
	return false
}

// overloaded reports whether a registry has answered that it cannot answer now.
func overloaded(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		switch status.StatusCode {
		case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
	}
	return means(err, registryBusy)
}

// refused reports whether another login may be let in.
func refused(err error) bool {
	return errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) || errors.Is(err, docker.ErrInvalidAuthorization) ||
		errdefs.IsNotFound(err) || means(err, loginRefused)
}

// errShimLeft marks what went wrong after the shim had left a container half-way.
var errShimLeft = errors.New("the shim had gone")

// shimLeaving reports whether a container could not be started because its shim was about to go; it can be started once more.
func shimLeaving(err error) bool {
	return errors.Is(err, errShimLeft) || errdefs.IsUnavailable(err) || means(err, shimGone) && !means(err, runcRefused)
}
