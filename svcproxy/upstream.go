package svcproxy

import (
	"net/netip"
	"time"
)

// upstreamHealth is what is known of the name servers: which are silent and left alone for a while, and which are being
// probed. The zero value knows nothing. It is guarded by the forwarder's mu, and decides only: the forwarder asks.
type upstreamHealth struct {
	servers map[netip.AddrPort]*serverHealth // those of now and of earlier configurations, at most maxServers
}

// maxServers bounds the servers that are remembered; the configuration of a host that moves about has new ones at times.
const maxServers = 64

type serverHealth struct {
	restsUntil time.Time
	answered   time.Time // when it last answered anything
	probing    bool
}

func (h *upstreamHealth) of(s netip.AddrPort) *serverHealth {
	if h.servers == nil || len(h.servers) >= maxServers && h.servers[s] == nil {
		h.servers = map[netip.AddrPort]*serverHealth{}
	}
	if h.servers[s] == nil {
		h.servers[s] = &serverHealth{}
	}
	return h.servers[s]
}

// awake lists those of the servers that do not rest.
func (h *upstreamHealth) awake(all []netip.AddrPort, now time.Time) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range all {
		if now.After(h.of(s).restsUntil) {
			out = append(out, s)
		}
	}
	return out
}

// probing reports whether a probe is under way.
func (h *upstreamHealth) probing() bool {
	for _, s := range h.servers {
		if s.probing {
			return true
		}
	}
	return false
}

// begin notes that a probe of the server begins; false: there is one already.
func (h *upstreamHealth) begin(s netip.AddrPort) bool {
	if h.of(s).probing {
		return false
	}
	h.of(s).probing = true
	return true
}

func (h *upstreamHealth) probed(s netip.AddrPort) { h.of(s).probing = false }

func (h *upstreamHealth) answered(s netip.AddrPort, now time.Time) {
	h.of(s).answered, h.of(s).restsUntil = now, time.Time{}
}

func (h *upstreamHealth) answeredSince(s netip.AddrPort, t time.Time) bool {
	return h.of(s).answered.After(t)
}

// rest leaves a server alone for a while, and reports whether that is news.
func (h *upstreamHealth) rest(s netip.AddrPort, now time.Time) (news bool) {
	e := h.of(s)
	news = now.After(e.restsUntil.Add(time.Minute))
	e.restsUntil = now.Add(upstreamRest)
	return news
}

// rests reports whether a server is left alone.
func (h *upstreamHealth) rests(s netip.AddrPort, now time.Time) bool {
	return now.Before(h.of(s).restsUntil)
}
