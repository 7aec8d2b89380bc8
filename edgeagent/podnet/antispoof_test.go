package podnet

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A pod writes another's address into its packets (NET_RAW is a default capability), so that it takes the other's share of
// what is shared by client, or its place.
func TestPodsSendFromTheirOwnAddresses(t *testing.T) {
	ctx := t.Context()
	m := newMachine(t, Config{})
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	var pods []Attachment
	for _, uid := range []string{"bad", "victim", "server"} {
		a, err := m.net.Attach(ctx, uid)
		must(t, err)
		pods = append(pods, a)
	}
	if !m.net.antispoof {
		t.Skip("this kernel has no nftables for interfaces")
	}
	bad, victim, server := pods[0], pods[1], pods[2]
	var c net.PacketConn
	in(t, server.NetnsPath, func() (err error) { c, err = net.ListenPacket("udp4", ":9999"); return err })
	defer c.Close()
	// send sends a datagram from a pod with a source address of its choice.
	send := func(from Attachment, src netip.Addr) {
		t.Helper()
		in(t, from.NetnsPath, func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			dst := server.IPs[0].As4()
			s := src.As4()
			p := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, s[0], s[1], s[2], s[3], dst[0], dst[1], dst[2], dst[3],
				0x30, 0x39, 0x27, 0x0f, 0, 9, 0, 0, 'x'} // port 12345 to 9999, without a checksum
			return unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: dst})
		})
	}
	// received is where the next datagram within a time comes from; "" if none does.
	received := func(within time.Duration) string {
		_ = c.SetReadDeadline(time.Now().Add(within))
		_, from, err := c.ReadFrom(make([]byte, 10))
		if err != nil {
			return ""
		}
		return from.(*net.UDPAddr).IP.String()
	}
	const quiet = 300 * time.Millisecond
	// arrives sends from a pod's own address until a datagram comes: the first may be lost while neighbours learn of each other.
	arrives := func(from Attachment, when string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; {
			send(from, from.IPs[0])
			if got := received(time.Second); got == from.IPs[0].String() {
				break
			} else if got != "" || time.Now().After(end) {
				t.Fatalf("%s a pod's own address: got %q", when, got)
			}
		}
		for received(quiet) != "" { // those that were sent again
		}
	}
	arrives(bad, "at first,")
	send(bad, victim.IPs[0])
	if got := received(quiet); got != "" {
		t.Errorf("a datagram from %s, which another pod has, went through", got)
	}
	m.restart() // an agent that starts again
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	arrives(victim, "after a restart of the agent,")
	must(t, m.net.Detach(ctx, "victim"))
	send(bad, victim.IPs[0])
	if got := received(quiet); got != "" {
		t.Errorf("the address of a pod that is gone: %s", got)
	}
}
