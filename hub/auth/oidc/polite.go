package oidc

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// askPause is the least time between two questions for the same address: tokens that name keys of nobody would otherwise have
	// the hub fetch keys for each.
	askPause = 2 * time.Second
	// maxAnswer bounds an answer of the issuer, in bytes.
	maxAnswer = 1 << 20
	// maxAddresses bounds what is remembered: discovery and keys.
	maxAddresses = 16
)

var errTooOften = errors.New("the issuer was asked a moment ago")

// polite is an http.RoundTripper that asks seldom, and reads answers of a bounded length.
type polite struct {
	next http.RoundTripper

	mu   sync.Mutex
	last map[string]time.Time // when an address was asked; guarded by mu
}

// RoundTrip implements http.RoundTripper.
func (p *polite) RoundTrip(r *http.Request) (*http.Response, error) {
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
	resp.Body = &bounded{Reader: io.LimitReader(resp.Body, maxAnswer), Closer: resp.Body}
	return resp, nil
}

// bounded is a body of which only a part can be read: what is longer does not parse.
type bounded struct {
	io.Reader
	io.Closer
}
