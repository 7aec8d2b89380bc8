// Package auth authenticates and authorizes requests, and holds the keys for it. It owns the types for both (User, Attributes,
// Authenticator, Authorizer) and imports none of its callers.
//
//	DATA/pki/ca.key, ca.crt          the hub's own CA; 100 years, because nothing at the edge may expire
//	DATA/pki/server.key, server.crt  shown to clients and agents; the key never changes, so that agents can pin it
//	DATA/pki/admin.key, admin.crt    system:masters, for admin.kubeconfig
//	DATA/pki/admins/NAME.crt         certificates of further administrators, made by `petrel admin issue`
//	DATA/pki/revoked                 client certificates that are refused
//	DATA/pki/sa.key, sa-retired      sign and verify ServiceAccount tokens: see satoken
//
// Only keys matter; certificates are derived from them. A certificate that is missing, damaged, near its end or lacks a name is
// issued again from the keys, at start and while running. A key that is damaged is an error which names the file, because
// only the operator can decide between a backup and a new identity.
//
// Clocks are not trusted. A board without a battery starts in 1970: times before this program was written count as that
// day, so that neither certificates nor tokens become "not yet valid".
package auth

import (
	"time"

	"petrel.dev/petrel/internal/clock"
)

// sane returns t, or a day on which this program already existed when t cannot be right.
func sane(t time.Time) time.Time { return clock.Sane(t) }
