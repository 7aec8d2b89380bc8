package auth

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"petrel.dev/petrel/hub/auth/keyfile"
)

// revokedFile in the PKI directory names the client certificates that are refused, a line each:
//
//	key 5f0c…e1 2026-11-28T20:15:00Z alice      every certificate of this public key (SHA-256 of its DER form)
//	serial 7a31…09 2026-11-28T20:15:00Z -       this one certificate, whose key is not known
//
// It is with the keys, not among the API's objects: no client can take a line out again, and neither can a backup of the store that
// is restored. `petrel admin` writes it; a running hub applies it at once.
const revokedFile = "revoked"

const revokedHead = "# Client certificates that the hub refuses. `petrel admin revoke` adds to it.\n"

// revocation is one line of the file.
type revocation struct {
	id   string // "key HEX" or "serial HEX", lower case
	name string // whose it was; "-" when that is not known
	at   time.Time
}

func (r revocation) line() string {
	return fmt.Sprintf("%s %s %s\n", r.id, r.at.UTC().Format(time.RFC3339), r.name)
}

// keyOf returns the id of all certificates of one public key: a certificate that is renewed keeps its key.
func keyOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "key " + hex.EncodeToString(sum[:])
}

func serialOf(cert *x509.Certificate) string { return "serial " + cert.SerialNumber.Text(16) }

// readRevoked reads the list of dir; one that does not exist is empty. A line that cannot be read is an error: to
// ignore it could accept a stolen certificate.
func readRevoked(dir string) (map[string]revocation, error) {
	path := filepath.Join(dir, revokedFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]revocation{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read revoked certificates: %w", err)
	}
	list := map[string]revocation{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		r, err := parseRevocation(text)
		if err != nil {
			return nil, fmt.Errorf("revoked certificates %s, line %d: %w; correct it, or take the file from a backup", path, n, err)
		}
		list[r.id] = r
	}
	return list, lines.Err()
}

func parseRevocation(text string) (revocation, error) {
	f := strings.Fields(text)
	if len(f) != 4 || f[0] != "key" && f[0] != "serial" || strings.Trim(f[1], "0123456789abcdef") != "" {
		return revocation{}, fmt.Errorf("%.100q is not `key|serial HEX TIME NAME`", text)
	}
	at, err := time.Parse(time.RFC3339, f[2])
	if err != nil {
		return revocation{}, fmt.Errorf("%.100q is no time: %w", f[2], err)
	}
	return revocation{id: f[0] + " " + f[1], at: at, name: f[3]}, nil
}

// addRevoked adds r to the list of dir, unless it is in it.
func addRevoked(dir string, r revocation) error {
	list, err := readRevoked(dir)
	if err != nil {
		return err
	}
	if _, ok := list[r.id]; ok {
		return nil
	}
	list[r.id] = r
	byTime := func(a, b revocation) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	}
	text := revokedHead
	for _, r := range slices.SortedFunc(maps.Values(list), byTime) {
		text += r.line()
	}
	return keyfile.Write(filepath.Join(dir, revokedFile), []byte(text), 0o600)
}

// revocations is the list as a running hub applies it.
type revocations struct {
	list atomic.Pointer[map[string]revocation] // never nil after the first set; replaced as a whole

	mu   sync.Mutex
	open map[*longRequest]struct{} // requests to end when their certificate is revoked; guarded by mu
}

// longRequest is a request that goes on after it was admitted: a watch, a stream.
type longRequest struct {
	cert *x509.Certificate
	end  func()
}

// of returns the revocation of cert; ok is false when there is none.
func (r *revocations) of(cert *x509.Certificate) (why revocation, ok bool) {
	list := *r.list.Load()
	if len(list) == 0 {
		return revocation{}, false
	}
	if why, ok = list[keyOf(cert)]; !ok {
		why, ok = list[serialOf(cert)]
	}
	return why, ok
}

// set applies a list, and ends the open requests of certificates in it.
func (r *revocations) set(list map[string]revocation) {
	r.list.Store(&list)
	r.mu.Lock()
	defer r.mu.Unlock()
	for q := range r.open {
		if _, refused := r.of(q.cert); refused {
			delete(r.open, q)
			go q.end()
		}
	}
}

// until calls end, once, when cert is revoked before stop is called; at once when it is so already.
func (r *revocations) until(cert *x509.Certificate, end func()) (stop func()) {
	q := &longRequest{cert: cert, end: end}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, refused := r.of(cert); refused {
		go end()
		return func() {}
	}
	if r.open == nil {
		r.open = map[*longRequest]struct{}{}
	}
	r.open[q] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, q)
	}
}
