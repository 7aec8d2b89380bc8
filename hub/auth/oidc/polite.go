package oidc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// askPause is the least time between two questions for the same address: tokens that name keys of nobody would otherwise have
	// the hub fetch keys for each.
	askPause = 2 * time.Second
	// maxAnswer bounds an answer of the issuer, in bytes: ten times what the field's largest have.
	maxAnswer = 256 << 10
	// maxKeys bounds the keys of the issuer: a token that names none is tried with each.
	maxKeys = 100
	// maxModulus bounds the modulus of an RSA key, in characters of base64: 8192 bits. A verification takes time with its square or worse,
	// and nothing stops it.
	maxModulus = (1024*8 + 5) / 6
	// maxRedirects bounds how often the issuer may send a question elsewhere.
	maxRedirects = 3
	// maxAddresses bounds what is remembered: discovery and keys.
	maxAddresses = 16
)

var errTooOften = errors.New("the issuer was asked a moment ago")

// polite is an http.RoundTripper that asks seldom, by TLS only, and reads answers of a bounded length, which cannot be expensive to verify
// with.
type polite struct {
	next http.RoundTripper

	mu   sync.Mutex
	last map[string]time.Time // when an address was asked; guarded by mu
}

// RoundTrip implements http.RoundTripper.
func (p *polite) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("the issuer says that %.200q is to be asked, which is no https URL", r.URL.Redacted())
	}
	address, now := r.URL.String(), time.Now()
	p.mu.Lock()
	soon := now.Sub(p.last[address]) < askPause
	if !soon {
		if p.last == nil || len(p.last) >= maxAddresses {
			p.last = map[string]time.Time{}
		}
		p.last[address] = now
	}
	p.mu.Unlock()
	if soon {
		return nil, errTooOften
	}
	resp, err := p.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the issuer's answer has more than %d bytes", maxAnswer)
	}
	if err := checkKeys(body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// checkKeys refuses a set of keys that tokens could not be verified with in a short time. What is no set of keys passes.
func checkKeys(body []byte) error {
	var set struct {
		Keys []struct {
			N string `json:"n"`
		} `json:"keys"`
	}
	if json.Unmarshal(body, &set) != nil {
		return nil
	}
	if len(set.Keys) > maxKeys {
		return fmt.Errorf("the issuer has %d keys, and %d are the limit", len(set.Keys), maxKeys)
	}
	for _, k := range set.Keys {
		if len(k.N) > maxModulus {
			return errors.New("the issuer has an RSA key of more than 8192 bits")
		}
	}
	return nil
}

// checkRedirect bounds how often a question is sent elsewhere; that it stays with TLS is RoundTrip's matter.
func checkRedirect(_ *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("the issuer redirects too often")
	}
	return nil
}
