package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// PodNames are what a pod calls itself.
type PodNames struct {
	Short  string // without a domain, or hostnameOverride
	FQDN   string // "": the pod has no subdomain
	Kernel string // what "hostname" prints
}

// kernelNameMax is how long a host name the kernel takes, in bytes.
const kernelNameMax = 64

// Names finds a pod's names as kubelet does: hostnameOverride alone, otherwise hostname or the pod's own name, with the
// subdomain behind it where setHostnameAsFQDN wants that.
func Names(pod *corev1.Pod, domain string) (PodNames, error) {
	short := func(name string) string {
		if len(name) > kernelNameMax-1 {
			name = strings.TrimRight(name[:kernelNameMax-1], "-.")
		}
		return name
	}
	if over := pod.Spec.HostnameOverride; over != nil {
		return PodNames{Short: short(*over), Kernel: short(*over)}, nil
	}
	n := PodNames{Short: short(pod.Name)}
	if pod.Spec.Hostname != "" {
		n.Short = short(pod.Spec.Hostname)
	}
	n.Kernel = n.Short
	if sub := pod.Spec.Subdomain; sub != "" {
		n.FQDN = fmt.Sprintf("%s.%s.%s.svc.%s", n.Short, sub, pod.Namespace, domain)
		if isTrue(pod.Spec.SetHostnameAsFQDN) {
			n.Kernel = n.FQDN
		}
	}
	if len(n.Kernel) > kernelNameMax {
		return PodNames{}, fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)",
			n.Kernel, kernelNameMax, len(n.Kernel))
	}
	return n, nil
}
