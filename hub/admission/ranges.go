package admission

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"petrel.dev/petrel/hub/resource/core"
	"petrel.dev/petrel/internal/kube"
)

// Both ranges allocate numbers of their upper part first, at random, so that the low ones, which users tend to write into manifests,
// stay free.

// ipRange is the service network.
type ipRange struct {
	cidr   netip.Prefix
	size   uint64 // addresses to give out from; the first, and the last of an IPv4 network, are not usable
	family corev1.IPFamily
	api    netip.Addr // reserved for the Service of the API
	dns    netip.Addr // reserved for the Service of the DNS
}

// newIPRange returns the range of a network, which must have room for the reserved addresses.
func newIPRange(cidr netip.Prefix) (ipRange, error) {
	cidr = cidr.Masked()
	bits := cidr.Addr().BitLen() - cidr.Bits()
	if bits < 4 {
		return ipRange{}, fmt.Errorf("service network %s is too small: give at least 16 addresses", cidr)
	}
	r := ipRange{cidr: cidr, size: 1 << bits, family: corev1.IPv4Protocol}
	if cidr.Addr().Is6() {
		r.family, r.size = corev1.IPv6Protocol, 1<<min(bits, 20) // a million addresses are plenty
	}
	r.api, r.dns = r.at(1), r.at(10)
	return r, nil
}

// at returns the n-th address.
func (r ipRange) at(n uint64) netip.Addr {
	if r.cidr.Addr().Is4() {
		b := r.cidr.Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := r.cidr.Addr().As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}

// last returns the number of the last usable address.
func (r ipRange) last() uint64 {
	if r.cidr.Addr().Is4() {
		return r.size - 2
	}
	return r.size - 1
}

// contains reports whether a Service may ask for the address.
func (r ipRange) contains(ip netip.Addr) bool {
	return r.cidr.Contains(ip) && ip != r.cidr.Addr() && (ip.Is6() || ip != r.at(r.size-1))
}

// reservedFor returns the only Service ("namespace/name") that may have the address; "" when any may.
func (r ipRange) reservedFor(ip netip.Addr) string {
	switch ip {
	case r.api:
		return apiService
	case r.dns:
		return dnsService
	}
	return ""
}

// next returns the first address for which free returns true: free claims it.
func (r ipRange) next(free func(netip.Addr) bool) (netip.Addr, bool) {
	low := uint64(0)
	if r.size > 16 {
		low = min(max(16, r.size/16), 256)
	}
	n, ok := pick(max(low, 1), r.last(), func(n uint64) bool { return r.reservedFor(r.at(n)) == "" && free(r.at(n)) })
	if !ok {
		n, ok = pick(1, low, func(n uint64) bool { return r.reservedFor(r.at(n)) == "" && free(r.at(n)) })
	}
	return r.at(n), ok
}

// pick tries all of from..to (inclusive) once, beginning at a random one, and returns the first that is free.
func pick(from, to uint64, free func(uint64) bool) (uint64, bool) {
	if to < from {
		return 0, false
	}
	span := to - from + 1
	start := rand.Uint64N(span)
	for i := range span {
		if n := from + (start+i)%span; free(n) {
			return n, true
		}
	}
	return 0, false
}

// setFamilies fills in ipFamilyPolicy and ipFamilies for a cluster of one family, or refuses what it cannot have.
func (r ipRange) setFamilies(svc, old *corev1.Service) error {
	spec := &svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	headless := spec.ClusterIP == corev1.ClusterIPNone
	loose := headless && len(spec.Selector) == 0 // a user may write endpoints of any family
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if old != nil && old.Spec.IPFamilyPolicy != nil {
			policy = *old.Spec.IPFamilyPolicy
		} else if loose {
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &policy
	}
	if errs := core.ValidateClusterIPs(svc, old); len(errs) > 0 {
		return kube.NewInvalid(kube.Service.GroupKind(), svc.Name, errs)
	}
	if errs := r.checkFamilies(spec, headless, loose); len(errs) > 0 {
		return kube.NewInvalid(kube.Service.GroupKind(), svc.Name, errs)
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{r.family}
	}
	if loose && len(spec.IPFamilies) == 1 && *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		other := corev1.IPv6Protocol
		if spec.IPFamilies[0] == other {
			other = corev1.IPv4Protocol
		}
		spec.IPFamilies = append(spec.IPFamilies, other)
	}
	return nil
}

// checkFamilies returns, with upstream's texts, what the Service asks for that a cluster of one family does not have.
func (r ipRange) checkFamilies(spec *corev1.ServiceSpec, headless, loose bool) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	single := *spec.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	if single && len(spec.ClusterIPs) == 2 {
		errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), spec.IPFamilyPolicy,
			"must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"))
	}
	if single && len(spec.IPFamilies) == 2 {
		errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), spec.IPFamilyPolicy,
			"must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"))
	}
	if !headless {
		for i := len(spec.IPFamilies); i < len(spec.ClusterIPs); i++ {
			ip, err := netip.ParseAddr(spec.ClusterIPs[i])
			if family := familyOf(ip); err == nil && family != r.family {
				errs = append(errs, field.Invalid(path.Child("clusterIPs").Index(i), spec.ClusterIPs,
					fmt.Sprintf("%s is not configured on this cluster", family)))
			}
		}
	}
	if len(errs) > 0 || loose {
		return errs
	}
	if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
		errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), spec.IPFamilyPolicy,
			"this cluster is not configured for dual-stack services"))
	}
	for i, family := range spec.IPFamilies {
		if family != r.family {
			errs = append(errs, field.Invalid(path.Child("ipFamilies").Index(i), family, "not configured on this cluster"))
		}
	}
	return errs
}

func familyOf(ip netip.Addr) corev1.IPFamily {
	if ip.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// portRange is inclusive.
type portRange struct{ from, to int32 }

var nodePorts = portRange{30000, 32767}

func (r portRange) String() string           { return fmt.Sprintf("%d-%d", r.from, r.to) }
func (r portRange) contains(port int32) bool { return r.from <= port && port <= r.to }

// next returns the first port for which free returns true: free claims it.
func (r portRange) next(free func(int32) bool) (int32, bool) {
	size := uint64(r.to - r.from + 1)
	low := min(max(16, size/32), 128)
	ask := func(n uint64) bool { return free(r.from + int32(n)) }
	n, ok := pick(low, size-1, ask)
	if !ok {
		n, ok = pick(0, low-1, ask)
	}
	return r.from + int32(n), ok
}
