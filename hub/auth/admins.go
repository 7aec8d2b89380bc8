package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"petrel.dev/petrel/hub/auth/keyfile"
	"petrel.dev/petrel/hub/auth/satoken"
)

// AdminName is the user of the certificate in admin.kubeconfig, which the hub makes and renews by itself.
const AdminName = "petrel-admin"

// adminsDir in the PKI directory holds the certificates of further administrators, NAME.crt; the hub does not have their keys.
const adminsDir = "admins"

// Admins are the administrators' certificates of the hub whose keys lie in one directory. It works on files, whether the
// hub runs or not.
type Admins struct {
	dir string           // the PKI directory
	now func() time.Time // never nil
}

// OpenAdmins opens the PKI directory of a hub; it is an error when no hub has run there before.
func OpenAdmins(dir string) (*Admins, error) {
	_, err := os.Stat(filepath.Join(dir, "ca.key"))
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%s is its owner's only: use sudo", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("no hub has run here, or its data lies elsewhere: %w", err)
	}
	return &Admins{dir: dir, now: time.Now}, nil
}

// Admin is one certificate of an administrator.
type Admin struct {
	Name    string
	Serial  string // hexadecimal; empty for a revoked key whose certificates are not known
	Expires time.Time
	Revoked time.Time // zero: it is accepted
}

// List returns all certificates that are known, by name, the revoked ones of a name after the accepted one.
func (a *Admins) List() ([]Admin, error) {
	certs, err := a.certificates()
	if err != nil {
		return nil, err
	}
	revoked, err := readRevoked(a.dir)
	if err != nil {
		return nil, err
	}
	var out []Admin
	for _, name := range slices.Sorted(maps.Keys(certs)) {
		c := certs[name]
		admin := Admin{Name: name, Serial: c.SerialNumber.Text(16), Expires: c.NotAfter}
		for _, id := range []string{keyOf(c), serialOf(c)} {
			if r, ok := revoked[id]; ok {
				admin.Revoked = r.at
				delete(revoked, id)
			}
		}
		out = append(out, admin)
	}
	for _, r := range revoked {
		serial, _ := strings.CutPrefix(r.id, "serial ")
		if serial == r.id {
			serial = ""
		}
		out = append(out, Admin{Name: r.name, Serial: serial, Revoked: r.at})
	}
	slices.SortStableFunc(out, func(x, y Admin) int {
		if c := strings.Compare(x.Name, y.Name); c != 0 {
			return c
		}
		return x.Revoked.Compare(y.Revoked)
	})
	return out, nil
}

// certificates returns the last certificate of each name.
func (a *Admins) certificates() (map[string]*x509.Certificate, error) {
	files, err := filepath.Glob(filepath.Join(a.dir, adminsDir, "*.crt"))
	if err != nil {
		return nil, err
	}
	certs := map[string]*x509.Certificate{}
	for _, f := range files {
		if c := keyfile.ReadCert(f); c != nil {
			certs[strings.TrimSuffix(filepath.Base(f), ".crt")] = c
		}
	}
	if c := keyfile.ReadCert(filepath.Join(a.dir, "admin.crt")); c != nil {
		certs[AdminName] = c
	}
	return certs, nil
}

var adminName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9_.@]{0,61}[a-z0-9])?$`)

// Issue makes a key and a certificate for a further administrator, valid for ttl, and returns the kubeconfig for server.
// The key is only in the kubeconfig.
func (a *Admins) Issue(name, server string, ttl time.Duration) ([]byte, error) {
	if !adminName.MatchString(name) || name == AdminName {
		return nil, fmt.Errorf("an administrator cannot be called %q: at most 63 of a-z, 0-9 and -_.@, and not %s, which is the hub's own", name, AdminName)
	}
	if ttl < time.Hour || ttl > leafLifetime {
		return nil, fmt.Errorf("a certificate is valid for an hour at least and a year (%s) at most, not %s", leafLifetime, ttl)
	}
	path := filepath.Join(a.dir, adminsDir, name+".crt")
	revoked, err := readRevoked(a.dir)
	if err != nil {
		return nil, err
	}
	if old := keyfile.ReadCert(path); old != nil && a.now().Before(old.NotAfter) {
		_, byKey := revoked[keyOf(old)]
		_, bySerial := revoked[serialOf(old)]
		if !byKey && !bySerial {
			return nil, fmt.Errorf("%s has a certificate until %s; revoke it first (petrel admin revoke %s), or choose another name", name, old.NotAfter.Format(time.DateOnly), name)
		}
	}
	caKey, err := keyfile.Read(filepath.Join(a.dir, "ca.key"), func() error { return fs.ErrNotExist })
	if err != nil {
		return nil, err
	}
	ca := keyfile.ReadCert(filepath.Join(a.dir, "ca.crt"))
	if ca == nil || !caKey.PublicKey.Equal(ca.PublicKey) {
		return nil, fmt.Errorf("%s is not the certificate of ca.key beside it; start the hub, whose error explains what to do", filepath.Join(a.dir, "ca.crt"))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	l := adminLeaf(name)
	l.lifetime = ttl
	cert, err := l.issue(ca, caKey, &key.PublicKey, a.now())
	if err != nil {
		return nil, err
	}
	// Recorded before it is used: what is not in the directory can only be revoked by its serial number.
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := keyfile.Write(path, keyfile.CertPEM(cert), 0o600); err != nil {
		return nil, err
	}
	return kubeconfig(server, name, ca, cert, key)
}

func adminLeaf(name string) leaf {
	return leaf{subject: pkix.Name{CommonName: name, Organization: []string{GroupMasters}}, usage: x509.ExtKeyUsageClientAuth}
}

// Revoke makes the hub refuse the certificates of an administrator, by name, or one certificate, by its serial number in
// hexadecimal. It returns the name, "-" when only the number is known.
func (a *Admins) Revoke(nameOrSerial string) (name string, err error) {
	certs, err := a.certificates()
	if err != nil {
		return "", err
	}
	if c, ok := certs[nameOrSerial]; ok {
		return nameOrSerial, addRevoked(a.dir, revocation{id: keyOf(c), name: nameOrSerial, at: a.now()})
	}
	serial := strings.TrimLeft(strings.ToLower(strings.ReplaceAll(nameOrSerial, ":", "")), "0")
	for name, c := range certs {
		if c.SerialNumber.Text(16) == serial {
			return name, addRevoked(a.dir, revocation{id: keyOf(c), name: name, at: a.now()})
		}
	}
	const leastSerial = 16 // hexadecimal digits: the hub's have 32, so that no name in hexadecimal letters is taken for one
	if len(serial) < leastSerial || strings.Trim(serial, "0123456789abcdef") != "" {
		return "", fmt.Errorf("there is no administrator %q, and it is no serial number; petrel admin list shows those there are", nameOrSerial)
	}
	return "-", addRevoked(a.dir, revocation{id: "serial " + serial, name: "-", at: a.now()})
}

// RotateTokenKey makes a new key that signs ServiceAccount tokens. Tokens of the one before stay good until they expire.
func (a *Admins) RotateTokenKey() error {
	keys, err := satoken.Open(a.dir, a.now)
	if err != nil {
		return err
	}
	return keys.Rotate()
}
