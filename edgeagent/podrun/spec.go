package podrun

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
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
func (w *worker) containerSpec(pod *corev1.Pod, c *corev1.Container, attempt int, set *Set, sb *sandboxState) (ContainerSpec, []string, error) {
	t := w.table
	vars, skipped, err := environment(pod, c, set, t.facts(sb))
	if err != nil {
		return ContainerSpec{}, nil, err
	}
	spec := ContainerSpec{
		PodUID: string(pod.UID), Namespace: pod.Namespace, Pod: pod.Name, Name: c.Name, Attempt: attempt, SandboxID: sb.id, Hash: hashOf(*c),
		Image: c.Image, Command: expandAll(c.Command, vars), Args: expandAll(c.Args, vars), Env: sortedEnv(vars), WorkingDir: c.WorkingDir,
		Security: securityOf(pod, c), Resources: resourcesOf(c.Resources, qosOf(pod), t.cfg.Memory),
		TTY: c.TTY, Stdin: c.Stdin, StdinOnce: c.StdinOnce,
		NetnsPath: sb.netns, HostNet: pod.Spec.HostNetwork, HostPID: pod.Spec.HostPID, HostIPC: pod.Spec.HostIPC,
		LogPath: w.logPath(c.Name, attempt),
	}
	spec.Hostname, _ = hostname(pod)
	if isCritical(pod) {
		spec.Resources.OOMScoreAdj = -997
	}
	for _, m := range c.VolumeMounts {
		if m.SubPathExpr != "" {
			m.SubPath = expand(m.SubPathExpr, vars)
		}
		src, err := t.cfg.Volumes.MountSource(pod, m)
		if err != nil {
			return ContainerSpec{}, nil, err
		}
		mount := Mount{Source: src, Target: m.MountPath, ReadOnly: m.ReadOnly || t.cfg.Volumes.ReadOnly(pod, m.Name)}
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

func (w *worker) logPath(container string, attempt int) string {
	return filepath.Join(w.dir, container, strconv.Itoa(attempt)+".log")
}

// securityOf joins the pod's and the container's security contexts; the container's wins.
func securityOf(pod *corev1.Pod, c *corev1.Container) Security {
	var s Security
	profile := func(p *corev1.SeccompProfile) {
		if p == nil {
			return
		}
		s.SeccompUnconfined, s.SeccompProfile = p.Type == corev1.SeccompProfileTypeUnconfined, ""
		if p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil {
			s.SeccompProfile = *p.LocalhostProfile
		}
	}
	// Kubernetes' own default is Unconfined.
	s.SeccompUnconfined = true
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
			s.Sysctls[sc.Name] = sc.Value
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

// resourcesOf turns requests and limits into the kernel's units, and into how willingly the kernel's out-of-memory
// killer takes the container, as kubelet reckons it. memory is the node's, in bytes.
func resourcesOf(r corev1.ResourceRequirements, qos corev1.PodQOSClass, memory int64) Resources {
	out := Resources{CPUShares: 2}
	cpu, hasReq := r.Requests[corev1.ResourceCPU]
	limit, hasLimit := r.Limits[corev1.ResourceCPU]
	if !hasReq && hasLimit {
		cpu, hasReq = limit, true
	}
	if hasReq {
		out.CPUShares = sharesOf(cpu.MilliValue())
	}
	if hasLimit && !limit.IsZero() {
		out.CPUPeriod = 100_000
		out.CPUQuota = max(limit.MilliValue()*100, 1000)
	}
	out.MemoryLimit = r.Limits.Memory().Value()
	switch qos {
	case corev1.PodQOSGuaranteed:
		out.OOMScoreAdj = -997
	case corev1.PodQOSBestEffort:
		out.OOMScoreAdj = 1000
	default:
		out.OOMScoreAdj = 999
		if memory > 0 {
			out.OOMScoreAdj = int(min(max(1000-1000*r.Requests.Memory().Value()/memory, 3), 999))
		}
	}
	return out
}

func sharesOf(milli int64) uint64 {
	return uint64(min(max(int64(math.Round(float64(milli)*1024/1000)), 2), 262144))
}

// podResources are the limits around a whole pod: the sum of its containers', where every one has a limit.
func podResources(pod *corev1.Pod) Resources {
	var out Resources
	var milli, memory, quota int64
	allMemory, allCPU := true, true
	for _, c := range pod.Spec.Containers {
		cpu := c.Resources.Requests.Cpu()
		if cpu.IsZero() {
			cpu = c.Resources.Limits.Cpu()
		}
		milli += cpu.MilliValue()
		quota += c.Resources.Limits.Cpu().MilliValue()
		memory += c.Resources.Limits.Memory().Value()
		allMemory = allMemory && !c.Resources.Limits.Memory().IsZero()
		allCPU = allCPU && !c.Resources.Limits.Cpu().IsZero()
	}
	for _, c := range pod.Spec.InitContainers { // each of them alone must fit as well
		milli = max(milli, c.Resources.Requests.Cpu().MilliValue())
		quota = max(quota, c.Resources.Limits.Cpu().MilliValue())
		memory = max(memory, c.Resources.Limits.Memory().Value())
		allMemory = allMemory && !c.Resources.Limits.Memory().IsZero()
		allCPU = allCPU && !c.Resources.Limits.Cpu().IsZero()
	}
	out.CPUShares = sharesOf(milli)
	if allMemory {
		out.MemoryLimit = memory
	}
	if allCPU {
		out.CPUPeriod, out.CPUQuota = 100_000, max(quota*100, 1000)
	}
	return out
}

func isCritical(pod *corev1.Pod) bool {
	return pod.Spec.PriorityClassName == "system-node-critical"
}

// hostname is what the pod calls itself.
func hostname(pod *corev1.Pod) (short, fqdn string) {
	short = pod.Spec.Hostname
	if short == "" {
		short = pod.Name
	}
	if len(short) > 63 {
		short = strings.TrimRight(short[:63], "-.")
	}
	return short, ""
}
