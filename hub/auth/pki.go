package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"petrel.dev/petrel/hub/auth/keyfile"
	"petrel.dev/petrel/hub/auth/satoken"
	"petrel.dev/petrel/internal/dirwatch"
)

// PKI holds the hub's keys and keeps its certificates valid. It is safe for concurrent use.
type PKI struct {
	dir   string                     // does not change
	hosts []string                   // further names and addresses of the hub; does not change
	now   func() time.Time           // never nil; may be wrong: see sane
	addrs func() ([]net.Addr, error) // the machine's addresses now; never nil
	log   *slog.Logger               // set by LogTo before Run; nil: no log

	// Never nil, and never change while the process runs: clients trust ca, agents pin serverKey.
	caKey, serverKey *ecdsa.PrivateKey
	ca               *x509.Certificate
	tokens           *satoken.Keys // never nil; has locks of its own
	// tokenKeyInUse is what satoken.Keys.Upkeep asks. Set before Run; nil: no retired key is removed.
	tokenKeyInUse func(kid string) bool
	// onChange are called when files of the directory may have changed. Set before Run.
	onChange []func() error

	// revoked is what Authenticate refuses. It is set before LoadPKI returns, and has its own lock.
	revoked revocations

	mu          sync.Mutex        // guards what follows
	server      *tls.Certificate  // replaced by renew; never nil after LoadPKI, nor changed in place: handshakes share it
	adminKey    *ecdsa.PrivateKey // replaced when it is revoked or another process has changed it; never nil after LoadPKI
	admin       *x509.Certificate // of adminKey, with which it is replaced; never nil after LoadPKI
	kubeconfigs map[string]string // server URL by path, as passed to WriteKubeconfig: written again with admin; grows only
}

// LoadPKI reads the keys of dir, makes those that do not exist yet, and issues the certificates that are missing. hosts
// are further names and addresses under which clients reach the hub: those that the operator advertises, and the first
// address of the service network. The machine's own addresses are added, also when they change later.
func LoadPKI(dir string, hosts ...string) (*PKI, error) {
	return loadPKI(dir, hosts, time.Now, net.InterfaceAddrs)
}

func loadPKI(dir string, hosts []string, now func() time.Time, addrs func() ([]net.Addr, error)) (*PKI, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	p := &PKI{dir: dir, hosts: hosts, now: now, addrs: addrs, kubeconfigs: map[string]string{}}
	var err error
	if p.caKey, err = keyfile.Read(p.path("ca.key"), p.nothingDependsOn("ca.crt")); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	for _, k := range []struct {
		file string
		key  **ecdsa.PrivateKey
		on   string
	}{
		{"server.key", &p.serverKey, "server.crt"},
		{"admin.key", &p.adminKey, ""},
	} {
		if *k.key, err = keyfile.Read(p.path(k.file), p.nothingDependsOn(k.on)); err != nil {
			return nil, fmt.Errorf("pki: %w", err)
		}
	}
	if p.tokens, err = satoken.Open(dir, now); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	if err := p.loadCA(); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	list, err := readRevoked(dir)
	if err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	p.revoked.set(list)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.renew(p.adminKey); err != nil {
		return nil, fmt.Errorf("pki: %w", err)
	}
	return p, nil
}

// LogTo sets where Run reports a renewal that failed. It is called before Run.
func (p *PKI) LogTo(log *slog.Logger) { p.log = log }

// Tokens returns the keys of ServiceAccount tokens.
func (p *PKI) Tokens() *satoken.Keys { return p.tokens }

// KeepTokenKeys sets which retired keys of ServiceAccount tokens are kept however old they are. It is called before Run.
func (p *PKI) KeepTokenKeys(inUse func(kid string) bool) { p.tokenKeyInUse = inUse }

// OnChange makes reload be called when files of the directory may have changed. It is called before Run.
func (p *PKI) OnChange(reload func() error) { p.onChange = append(p.onChange, reload) }

func (p *PKI) path(file string) string { return filepath.Join(p.dir, file) }

// nothingDependsOn returns a check that refuses to make a new key beside a certificate of the lost one, which clients trust.
func (p *PKI) nothingDependsOn(cert string) func() error {
	return func() error {
		if cert == "" {
			return nil
		}
		if _, err := os.Stat(p.path(cert)); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("%s exists but its key is gone: restore the key from a backup, or remove the directory %s to begin with a new identity "+
			"(every kubeconfig and every agent will have to join again)", p.path(cert), p.dir)
	}
}

func (p *PKI) loadCA() error {
	p.ca = keyfile.ReadCert(p.path("ca.crt"))
	if p.ca != nil && p.caKey.PublicKey.Equal(p.ca.PublicKey) {
		return nil
	}
	if p.ca != nil {
		return fmt.Errorf("%s is not the certificate of %s: restore both from one backup, or remove %s to have it made again from the key",
			p.path("ca.crt"), p.path("ca.key"), p.path("ca.crt"))
	}
	ca, err := issueCA(p.caKey, p.now())
	if err != nil {
		return err
	}
	p.ca = ca
	return keyfile.Write(p.path("ca.crt"), keyfile.CertPEM(ca), 0o644)
}

// renew issues what is missing or near its end; the administrator's certificate for adminKey. A certificate that cannot be written is
// used all the same: the error then means that a restart would have to issue it again. p.mu is held.
func (p *PKI) renew(adminKey *ecdsa.PrivateKey) error {
	now := p.now()
	l := serverLeaf(p.hosts, p.addrs)
	cert, changed, werr := p.ensure("server.crt", l, p.serverCert(), &p.serverKey.PublicKey, now)
	if cert != nil && (changed || p.server == nil) {
		p.server = &tls.Certificate{Certificate: [][]byte{cert.Raw, p.ca.Raw}, PrivateKey: p.serverKey, Leaf: cert}
	}
	key, kerr := p.notRevoked(adminKey)
	if key == nil {
		return errors.Join(werr, kerr)
	}
	cert, changed, err := p.ensure("admin.crt", adminLeaf(AdminName), p.admin, &key.PublicKey, now)
	if cert != nil { // key and certificate change together: without one the other is of no use
		p.adminKey, p.admin = key, cert
	}
	errs := []error{werr, kerr, err}
	if changed { // with a new key the certificate is new too
		for path, server := range p.kubeconfigs {
			errs = append(errs, p.writeKubeconfig(path, server))
		}
	}
	return errors.Join(errs...)
}

// notRevoked returns key, or another one for the administrator when all certificates of key are revoked: also when that could not be
// written, because the next attempt, or start, makes another one. p.mu is held.
func (p *PKI) notRevoked(key *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	_, refused := p.revoked.of(&x509.Certificate{RawSubjectPublicKeyInfo: der, SerialNumber: new(big.Int)})
	if !refused {
		return key, nil
	}
	return keyfile.Create(p.path("admin.key"))
}

// reload applies what other processes have changed in the directory: the list of revoked certificates, the administrator's key, the
// keys of tokens, and what OnChange has added. What cannot be read leaves the one before in force.
func (p *PKI) reload() error {
	var errs []error
	for _, f := range append([]func() error{p.tokens.Reload}, p.onChange...) {
		errs = append(errs, f())
	}
	list, err := readRevoked(p.dir)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	before := len(*p.revoked.list.Load())
	p.revoked.set(list)
	if p.log != nil && len(list) != before {
		p.log.Info("list of revoked certificates has changed", "certificates", len(list), "before", before)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	adminKey := p.adminKey
	if key, err := keyfile.Read(p.path("admin.key"), func() error { return fs.ErrNotExist }); err == nil {
		adminKey = key
	}
	return errors.Join(append(errs, p.renew(adminKey))...)
}

func (p *PKI) serverCert() *x509.Certificate {
	if p.server == nil {
		return nil
	}
	return p.server.Leaf
}

func (p *PKI) ensure(file string, l leaf, have *x509.Certificate, pub *ecdsa.PublicKey, now time.Time) (*x509.Certificate, bool, error) {
	if have == nil {
		have = keyfile.ReadCert(p.path(file))
	}
	if l.served(have, p.ca, pub, now) {
		return have, false, nil
	}
	cert, err := l.issue(p.ca, p.caKey, pub, now)
	if err != nil {
		return nil, false, err
	}
	return cert, true, keyfile.Write(p.path(file), keyfile.CertPEM(cert), 0o644)
}

// Run renews certificates before they expire, until ctx ends. The server's certificate is also renewed by the handshake
// that needs it, so a machine that slept does not wait for Run. A full disk is no reason to stop serving: renewal begins
// months before the end, so Run tries again and gives up, with the error, only when a certificate has really ended.
func (p *PKI) Run(ctx context.Context) error {
	t := time.NewTicker(12 * time.Hour)
	defer t.Stop()
	changed, stop, err := dirwatch.Watch(p.dir)
	if err == nil {
		defer stop()
		err = p.reload() // for what changed before the watch began
	}
	p.failed("the directory of keys could not be read, or its changes will not be seen while the hub runs", err)
	p.failed("keys of ServiceAccount tokens could not be rotated", p.tokens.Upkeep(nil, p.log))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			p.failed("changes in the directory of keys could not be applied", p.reload())
		case <-t.C:
			p.failed("keys of ServiceAccount tokens could not be rotated", p.tokens.Upkeep(p.tokenKeyInUse, p.log))
			p.mu.Lock()
			err := p.renew(p.adminKey)
			ended := p.now().After(p.admin.NotAfter) || p.now().After(p.server.Leaf.NotAfter)
			p.mu.Unlock()
			if err != nil && p.log != nil {
				p.log.Error("certificates could not be renewed, and will be tried again", "error", err, "adminEnds", p.admin.NotAfter, "dir", p.dir)
			}
			if err != nil && ended {
				return fmt.Errorf("pki: renew certificates: %w", err)
			}
		}
	}
}

func (p *PKI) failed(what string, err error) {
	if err != nil && p.log != nil {
		p.log.Error(what, "error", err, "dir", p.dir)
	}
}

// ServerTLS is the configuration of the hub's port; the caller sets NextProtos. Client certificates are asked for and
// not checked in the handshake, because agents use the same port with keys of their own: the authenticator verifies
// those of API clients, the link those of agents.
func (p *PKI) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: p.certificateFor,
	}
}

// certificateFor returns the server's certificate, issued again when it nears its end or when the connection came in on an
// address that it does not name: a board's address changes with its network.
func (p *PKI) certificateFor(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := sane(p.now()).Add(renewBefore).After(p.server.Leaf.NotAfter)
	if hello.Conn != nil {
		if a, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok && !hasIP(p.server.Leaf, a.IP) {
			due = true
		}
	}
	if due {
		// An error is no reason to refuse the handshake: the current certificate may still be accepted.
		if err := p.renew(p.adminKey); err != nil && p.server == nil {
			return nil, err
		}
	}
	return p.server, nil
}

// ServerSPKI returns the SHA-256 of the server's public key (DER SubjectPublicKeyInfo): what agents pin. It never changes.
func (p *PKI) ServerSPKI() [32]byte {
	der, err := x509.MarshalPKIXPublicKey(&p.serverKey.PublicKey)
	if err != nil {
		panic("auth: a P-256 key has a DER form: " + err.Error())
	}
	return sha256.Sum256(der)
}

// CA returns the CA's certificate as PEM: the content of kube-root-ca.crt.
func (p *PKI) CA() []byte { return keyfile.CertPEM(p.ca) }
