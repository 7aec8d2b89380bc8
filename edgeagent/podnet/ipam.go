package podnet

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"petrel.dev/petrel/internal/durable"
)

// gateway is the address of the bridge in a podCIDR: its first usable one.
func gateway(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr().Next() }

func hostBits(p netip.Prefix) int { return p.Addr().BitLen() - p.Bits() }

// capacity is how many pods a podCIDR has addresses for: all but network, gateway and (IPv4) broadcast. Larger networks
// than 2^16 are used in part.
func capacity(cidr netip.Prefix) uint32 {
	bits := min(hostBits(cidr), 16)
	if cidr.Addr().Is4() {
		return 1<<bits - 3
	}
	return 1<<bits - 2
}

// nth is the i-th pod address of a podCIDR, 0 ≤ i < capacity.
func nth(cidr netip.Prefix, i uint32) netip.Addr {
	b := cidr.Masked().Addr().As16()
	low := binary.BigEndian.Uint32(b[12:])
	binary.BigEndian.PutUint32(b[12:], low+i+2)
	a := netip.AddrFrom16(b)
	if cidr.Addr().Is4() {
		a = a.Unmap()
	}
	return a
}

// choose picks an address for a pod: the one it has in this podCIDR, else the first free one from a place computed from
// its UID. So an address is stable when its record is lost, and not handed to the next pod as soon as it becomes free,
// while neighbours and clients still remember its former owner.
func choose(cidr netip.Prefix, uid string, owner map[netip.Addr]string) (netip.Addr, bool) {
	for a, u := range owner {
		if u == uid && cidr.Contains(a) && a != gateway(cidr) {
			return a, true
		}
	}
	size := capacity(cidr)
	sum := sha256.Sum256([]byte(uid))
	start := binary.BigEndian.Uint32(sum[:]) % size
	for i := range size {
		a := nth(cidr, (start+i)%size)
		if _, taken := owner[a]; !taken {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// allocate gives the pod one address in each podCIDR and records them before they are used.
func (n *Network) allocate(uid string) ([]netip.Addr, error) {
	owner, err := n.owners()
	if err != nil {
		return nil, err
	}
	var ips []netip.Addr
	for _, cidr := range n.podCIDRs {
		a, ok := choose(cidr, uid, owner)
		if !ok {
			return nil, fmt.Errorf("all %d addresses of %v are in use by pods on this node", capacity(cidr), cidr)
		}
		if owner[a] != uid {
			if err := writeRecord(n.ipamDir(), a.String(), uid); err != nil {
				return nil, fmt.Errorf("record address %v: %w", a, err)
			}
			owner[a] = uid
		}
		ips = append(ips, a)
	}
	return ips, n.releaseExcept(uid, ips) // of a former podCIDR
}

func (n *Network) release(uid string) error { return n.releaseExcept(uid, nil) }

func (n *Network) releaseExcept(uid string, keep []netip.Addr) error {
	owner, err := n.owners()
	if err != nil {
		return err
	}
	var errs []error
next:
	for a, u := range owner {
		if u != uid {
			continue
		}
		for _, k := range keep {
			if k == a {
				continue next
			}
		}
		if err := os.Remove(filepath.Join(n.ipamDir(), a.String())); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("free address %v: %w", a, err))
		}
	}
	return errors.Join(errs...)
}

// owners reads the records. A record that a power cut left empty or half-written belongs to a pod whose namespace is
// gone with the same cut, so it is dropped.
func (n *Network) owners() (map[netip.Addr]string, error) {
	entries, err := os.ReadDir(n.ipamDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("podnet ipam: %w", err)
	}
	owner := make(map[netip.Addr]string, len(entries))
	for _, e := range entries {
		path := filepath.Join(n.ipamDir(), e.Name())
		a, err := netip.ParseAddr(e.Name())
		if err == nil {
			var b []byte
			if b, err = os.ReadFile(path); err == nil {
				uid, complete := strings.CutSuffix(string(b), "\n")
				if complete && checkUID(uid) == nil {
					owner[a] = uid
					continue
				}
			}
		}
		_ = os.Remove(path)
	}
	return owner, nil
}

// writeRecord makes dir/name hold one line, all of it or nothing, and on disk before it returns.
func writeRecord(dir, name, line string) error {
	return durable.WriteFile(filepath.Join(dir, name), []byte(line+"\n"), 0o600)
}
