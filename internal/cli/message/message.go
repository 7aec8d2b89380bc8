// Package message puts errors of the API, of the network and of TLS into words for a person.
package message

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/cli/nearest"
)

// Of returns an error as a sentence that names the thing, the reason and the way out.
func Of(err error) string {
	if all, ok := err.(interface{ Unwrap() []error }); ok && strings.Contains(err.Error(), "\n") { // errors.Join: each is a sentence
		lines := make([]string, len(all.Unwrap()))
		for i, e := range all.Unwrap() {
			lines[i] = Of(e)
		}
		return strings.Join(lines, "\n")
	}
	if near, ok := errors.AsType[*nearest.Error](err); ok {
		return Of(near.Err) + near.Hint()
	}
	var op *net.OpError
	var dns *net.DNSError
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &status):
		s := status.Status()
		if s.Reason == "" || s.Reason == metav1.StatusReasonUnknown {
			return s.Message
		}
		if s.Reason == metav1.StatusReasonUnauthorized {
			return s.Message + ": the kubeconfig's credentials are not this hub's, have expired or were revoked; fetch a new one with `petrel kubeconfig` on the hub"
		}
		return fmt.Sprintf("%s (%s)", briefly(s.Message), s.Reason)
	case errors.As(err, &dns):
		return fmt.Sprintf("cannot reach the hub: the name %s is not known here; check the server address in the kubeconfig", dns.Name)
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		return fmt.Sprintf("cannot reach the hub at %s: nothing answers there; is that machine on, and is no firewall between?", op.Addr)
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Sprintf("cannot reach the hub at %s: %v; is `petrel hub` (or `petrel up`) running there?", op.Addr, op.Err)
	case strings.Contains(err.Error(), "certificate signed by unknown authority"):
		return err.Error() + "; the kubeconfig is of another hub: fetch a new one with `petrel kubeconfig` on the hub"
	}
	return err.Error()
}

// briefly cuts the object out of the refusal of a patch: the reason comes after it.
func briefly(message string) string {
	rest, ok := strings.CutPrefix(message, ` "" is invalid: patch: Invalid value: `)
	if !ok {
		return message
	}
	value, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return message
	}
	return "the change does not fit the type" + rest[len(value):]
}
