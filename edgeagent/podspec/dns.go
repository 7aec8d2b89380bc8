package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// DNS is how pods resolve names.
type DNS struct {
	Server string // the cluster's, "" when there is none
	Domain string // "cluster.local"
}

// resolver is the content of a resolv.conf.
type resolver struct{ servers, searches, options []string }

// resolvConf writes the pod's resolv.conf from its dnsPolicy and dnsConfig.
func resolvConf(pod *corev1.Pod, n Node) string {
	d, host := n.DNS, parseResolver(n.ResolvConf)
	var r resolver
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork || d.Server == "" && policy != corev1.DNSNone {
		policy = corev1.DNSDefault
	}
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		r = host
	default:
		r.servers = []string{d.Server}
		r.searches = append([]string{pod.Namespace + ".svc." + d.Domain, "svc." + d.Domain, d.Domain}, host.searches...)
		r.options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		r.servers = unique(append(r.servers, c.Nameservers...))
		r.searches = unique(append(r.searches, c.Searches...))
		for _, o := range c.Options {
			text := o.Name
			if o.Value != nil && *o.Value != "" {
				text += ":" + *o.Value
			}
			kept := r.options[:0:0]
			for _, have := range r.options { // the pod's own wins
				if name, _, _ := strings.Cut(have, ":"); name != o.Name {
					kept = append(kept, have)
				}
			}
			r.options = append(kept, text)
		}
	}
	var b strings.Builder
	if len(r.searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.searches, " "))
	}
	for _, s := range r.servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(r.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	}
	return b.String()
}

// parseResolver reads a resolv.conf. One that is empty has no servers to give.
func parseResolver(text string) resolver {
	var r resolver
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.servers = append(r.servers, f[1])
		case "search":
			r.searches = nil
			for _, s := range f[1:] {
				if s != "." {
					r.searches = append(r.searches, strings.TrimSuffix(s, "."))
				}
			}
		case "options":
			r.options = f[1:]
		}
	}
	return r
}

// hostsFile writes the pod's /etc/hosts.
func hostsFile(pod *corev1.Pod, n Node, at Place, names PodNames) string {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.WriteString(n.Hosts)
	} else {
		// Programs, the conformance suite among them, know by the first line that the file is not the image's.
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n" +
			"fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range at.IPs {
			if names.FQDN != "" {
				fmt.Fprintf(&b, "%s\t%s\t%s\n", ip, names.FQDN, names.Short)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, names.Short)
			}
		}
	}
	for _, a := range pod.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
	return b.String()
}

// unique drops what is in the list before; the order stays, because resolvers ask in it.
func unique(list []string) []string {
	seen := map[string]bool{}
	out := list[:0:0]
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
