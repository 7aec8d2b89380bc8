package svcproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"petrel.dev/petrel/internal/contain"
)

const (
	dnsHeaderSize = 12
	// maxDNSReaders bounds the goroutines that read questions. They never wait for upstream.
	maxDNSReaders = 4
	// dnsQueue is the kernel's queue of packets in bytes: room for some thousand, so that one client's burst does not lose
	// the others' questions.
	dnsQueue = 2 << 20
	// dnsFailurePause is how long a socket that failed rests before it is opened again.
	dnsFailurePause = 100 * time.Millisecond
)

// asker is who asked a question, and with which number: the same asker and question is the same request sent again.
type asker struct {
	addr netip.AddrPort
	id   uint16
	tcp  bool
}

func (a asker) client() netip.Addr { return a.addr.Addr().Unmap() }

// dnsUDP reads questions on a few goroutines, however many come: what the zone or the cache knows is answered there and
// then, what upstream is asked for has a place in the list of those who wait. (A server with a goroutine for each packet,
// as miekg/dns has, grows without a bound while upstream is silent.)
type dnsUDP struct {
	d      *dnsServer
	c      *net.UDPConn
	failed atomic.Bool
}

func (d *dnsServer) listenUDP(addr netip.AddrPort) (dnsSocket, error) {
	lc := net.ListenConfig{Control: freeBind}
	c, err := lc.ListenPacket(context.Background(), network("udp", addr), addr.String())
	if err != nil {
		return nil, err
	}
	u := &dnsUDP{d: d, c: c.(*net.UDPConn)}
	enlargeQueue(u.c, dnsQueue)
	for range min(runtime.GOMAXPROCS(0), maxDNSReaders) {
		go u.serve()
	}
	return u, nil
}

func (u *dnsUDP) broken() bool { return u.failed.Load() }
func (u *dnsUDP) at() uint16   { return portOf(u.c.LocalAddr()) }
func (u *dnsUDP) close()       { _ = u.c.Close() }

func (u *dnsUDP) serve() {
	buf := make([]byte, dnsSizeMax)
	for {
		n, from, err := u.c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !u.failed.Swap(true) {
				u.d.log.Error("cluster DNS socket failed", "error", err)
				time.Sleep(dnsFailurePause)
				u.d.kick()
			}
			return
		}
		contain.Go(u.d.log, "svcproxy/dns", "a question", func() { u.handle(buf[:n], from) })
	}
}

// handle answers one packet, now or later. It keeps nothing of it.
func (u *dnsUDP) handle(packet []byte, from netip.AddrPort) {
	if len(packet) < dnsHeaderSize {
		return
	}
	word := func(i int) uint16 { return binary.BigEndian.Uint16(packet[i:]) }
	h := dns.Header{Id: word(0), Bits: word(2), Qdcount: word(4), Ancount: word(6), Nscount: word(8), Arcount: word(10)}
	rcode := dns.RcodeSuccess
	req := new(dns.Msg)
	switch dns.DefaultMsgAcceptFunc(h) { // before anything is unpacked
	case dns.MsgIgnore:
		return
	case dns.MsgReject:
		rcode = dns.RcodeFormatError
	case dns.MsgRejectNotImplemented:
		rcode = dns.RcodeNotImplemented
	default:
		if req.Unpack(packet) != nil {
			rcode = dns.RcodeFormatError
		}
	}
	if rcode != dns.RcodeSuccess {
		m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: h.Id, Response: true, Opcode: int(h.Bits>>11) & 0xf, Rcode: rcode}}
		u.send(m, from)
		return
	}
	u.d.answer(req, asker{addr: from, id: req.Id}, func(m *dns.Msg) { u.send(m, from) })
}

func (u *dnsUDP) send(m *dns.Msg, to netip.AddrPort) {
	wire, err := m.Pack()
	if err == nil {
		_, err = u.c.WriteToUDPAddrPort(wire, to)
	}
	if err != nil {
		u.d.log.Debug("DNS answer not delivered", "client", to.String(), "error", err)
	}
}
