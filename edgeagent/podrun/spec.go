package podrun

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/desired"
)

// hashOf tells one definition of a container from another. Only what may change in a running pod counts.
func hashOf(c corev1.Container) string {
	b, err := json.Marshal(struct {
		Name, Image string
		Resources   corev1.ResourceRequirements
	}{c.Name, c.Image, c.Resources})
	if err != nil {
		panic(err) // these types always encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// containerSpec describes one attempt of a container in full. memory is the node's, in bytes.
func (w *worker) containerSpec(pod *corev1.Pod, c *corev1.Container, attempt int, set *desired.Set, sb *sandboxState) (cruntime.ContainerSpec, []string, error) {
	t := w.m
	facts := t.facts(sb)
	facts.volume = func(name string) (string, error) {
		return t.cfg.Volumes.MountSource(pod, corev1.VolumeMount{Name: name})
	}
	vars, skipped, err := environment(pod, c, set, facts)
	if err != nil {
		return cruntime.ContainerSpec{}, nil, err
	}
	spec := cruntime.ContainerSpec{
		PodUID: string(pod.UID), Namespace: pod.Namespace, Pod: pod.Name, Name: c.Name, Attempt: attempt, SandboxID: sb.id, Hash: hashOf(*c),
		Image: c.Image, Command: expandAll(c.Command, vars), Args: expandAll(c.Args, vars), Env: sortedEnv(vars), WorkingDir: c.WorkingDir,
		Security: securityOf(pod, c), Resources: resourcesOf(pod, c, t.cfg.Memory),
		TTY: c.TTY, Stdin: c.Stdin, StdinOnce: c.StdinOnce,
		NetnsPath: sb.netns, HostNet: pod.Spec.HostNetwork, HostPID: pod.Spec.HostPID, HostIPC: pod.Spec.HostIPC,
		SharePID: isTrue(pod.Spec.ShareProcessNamespace) && !pod.Spec.HostPID,
		LogPath:  w.logPath(c.Name, attempt),
	}
	if names, err := namesOf(pod, t.cfg.DNS.Domain); err == nil { // otherwise the pod has no sandbox
		spec.Hostname = names.kernel
	}
	for _, m := range c.VolumeMounts {
		if m.SubPathExpr != "" {
			if m.SubPath, err = expandKnown(m.SubPathExpr, vars); err != nil {
				return cruntime.ContainerSpec{}, nil, err
			}
		}
		src, err := t.cfg.Volumes.MountSource(pod, m)
		if err != nil {
			return cruntime.ContainerSpec{}, nil, err
		}
		mount := cruntime.Mount{Source: src, Target: m.MountPath, ReadOnly: m.ReadOnly || t.cfg.Volumes.ReadOnly(pod, m.Name)}
		if mount.Recursive, err = recursive(m, t.cfg.Host); err != nil {
			return cruntime.ContainerSpec{}, nil, err
		}
		if m.MountPropagation != nil {
			switch *m.MountPropagation {
			case corev1.MountPropagationHostToContainer:
				mount.Propagation = "rslave"
			case corev1.MountPropagationBidirectional:
				mount.Propagation = "rshared"
			}
		}
		if !filepath.IsAbs(mount.Target) {
			mount.Target = "/" + mount.Target
		}
		spec.Mounts = append(spec.Mounts, mount)
	}
	more, err := w.fileMounts(pod, c, attempt, spec.Security.ReadOnlyRoot, spec.Mounts)
	spec.Mounts = append(spec.Mounts, more...)
	return spec, skipped, err
}

// recursive reports whether a mount is to be read-only with all that is below it, in kubelet's way.
func recursive(m corev1.VolumeMount, host cruntime.Host) (bool, error) {
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	switch {
	case !m.ReadOnly:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not read-only", m.Name)
	case m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not compatible with propagation %q", m.Name, *m.MountPropagation)
	case *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled && !host.RecursiveReadOnly:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime (it needs Linux 5.12 and runc 1.1)", m.Name)
	}
	return host.RecursiveReadOnly, nil
}

func (w *worker) logPath(container string, attempt int) string {
	return filepath.Join(w.dir, container, strconv.Itoa(attempt)+".log")
}

// securityOf joins the pod's and the container's security contexts; the container's wins.
func securityOf(pod *corev1.Pod, c *corev1.Container) cruntime.Security {
	var s cruntime.Security
	profile := func(p *corev1.SeccompProfile) {
		if p == nil {
			return
		}
		s.SeccompUnconfined, s.SeccompDefault, s.SeccompProfile = p.Type == corev1.SeccompProfileTypeUnconfined, p.Type == corev1.SeccompProfileTypeRuntimeDefault, ""
		if p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil {
			s.SeccompProfile = *p.LocalhostProfile
		}
	}
	if p := pod.Spec.SecurityContext; p != nil {
		s.RunAsUser, s.RunAsGroup, s.NonRoot = p.RunAsUser, p.RunAsGroup, isTrue(p.RunAsNonRoot)
		s.Groups = slices.Clone(p.SupplementalGroups)
		if p.FSGroup != nil {
			s.Groups = append(s.Groups, *p.FSGroup)
		}
		s.StrictGroups = p.SupplementalGroupsPolicy != nil && *p.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict
		profile(p.SeccompProfile)
		for _, sc := range p.Sysctls {
			if s.Sysctls == nil {
				s.Sysctls = map[string]string{}
			}
			s.Sysctls[sysctl.NormalizeName(sc.Name)] = sc.Value
		}
	}
	if p := appArmorOf(pod, c); p != nil {
		s.AppArmorUnconfined = p.Type == corev1.AppArmorProfileTypeUnconfined
		s.AppArmorDefault = p.Type == corev1.AppArmorProfileTypeRuntimeDefault
		if p.Type == corev1.AppArmorProfileTypeLocalhost && p.LocalhostProfile != nil {
			s.AppArmorProfile = *p.LocalhostProfile
		}
	}
	if p := c.SecurityContext; p != nil {
		if p.RunAsUser != nil {
			s.RunAsUser = p.RunAsUser
		}
		if p.RunAsGroup != nil {
			s.RunAsGroup = p.RunAsGroup
		}
		if p.RunAsNonRoot != nil {
			s.NonRoot = *p.RunAsNonRoot
		}
		s.Privileged, s.ReadOnlyRoot = isTrue(p.Privileged), isTrue(p.ReadOnlyRootFilesystem)
		s.NoNewPrivileges = p.AllowPrivilegeEscalation != nil && !*p.AllowPrivilegeEscalation
		s.UnmaskedProc = p.ProcMount != nil && *p.ProcMount == corev1.UnmaskedProcMount
		if p.Capabilities != nil {
			s.AddCaps, s.DropCaps = capNames(p.Capabilities.Add), capNames(p.Capabilities.Drop)
		}
		profile(p.SeccompProfile)
	}
	return s
}

func capNames(list []corev1.Capability) []string {
	var out []string
	for _, c := range list {
		out = append(out, strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_"))
	}
	return out
}

// podNames are what a pod calls itself.
type podNames struct {
	short  string // without a domain, or what hostnameOverride says
	fqdn   string // "": the pod has no subdomain
	kernel string // what "hostname" prints
}

// kernelNameMax is how long a host name the kernel takes, in bytes.
const kernelNameMax = 64

// namesOf finds a pod's names as kubelet does: hostnameOverride alone, otherwise hostname or the pod's own name, with the
// subdomain behind it where setHostnameAsFQDN wants that.
func namesOf(pod *corev1.Pod, domain string) (podNames, error) {
	short := func(name string) string {
		if len(name) > kernelNameMax-1 {
			name = strings.TrimRight(name[:kernelNameMax-1], "-.")
		}
		return name
	}
	if over := pod.Spec.HostnameOverride; over != nil {
		return podNames{short: short(*over), kernel: short(*over)}, nil
	}
	n := podNames{short: short(pod.Name)}
	if pod.Spec.Hostname != "" {
		n.short = short(pod.Spec.Hostname)
	}
	n.kernel = n.short
	if sub := pod.Spec.Subdomain; sub != "" {
		n.fqdn = fmt.Sprintf("%s.%s.%s.svc.%s", n.short, sub, pod.Namespace, domain)
		if isTrue(pod.Spec.SetHostnameAsFQDN) {
			n.kernel = n.fqdn
		}
	}
	if len(n.kernel) > kernelNameMax {
		return podNames{}, fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)",
			n.kernel, kernelNameMax, len(n.kernel))
	}
	return n, nil
}
