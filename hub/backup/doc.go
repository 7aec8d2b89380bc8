// Package backup writes all that a hub is into one file, and makes a hub of such a file again.
//
// An archive is a tar file, compressed with zstd, and encrypted with age (age-encryption.org) when asked for:
//
//	petrel-backup.json   Manifest: format, who made it, the files that follow with sizes and SHA-256
//	hub.db               a snapshot of the store, as of one moment
//	pki/…                keys and certificates: the CA, the hub's link key (nodes know the hub by it), tokens' keys, what is revoked
//	secrets.key          with which Secrets in hub.db are encrypted, when it lies in the data directory
//
// The store goes first and keys after it, and secrets.key is compared with what it was before: so the keys fit the store whatever is rotated
// meanwhile. A restore writes everything to a directory of its own, checks it, and moves it into place, the store last: what is
// interrupted can be repeated, and no hub starts on a half. The store begins a new history then, which tells nodes that it may have gone
// back in time (docs/link-protocol.md).
package backup
