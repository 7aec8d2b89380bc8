package podspec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"

	"petrel.dev/petrel/edgeagent/cruntime"
)

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
	if p := AppArmor(pod, c); p != nil {
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

// capNames returns capabilities as the runtime takes them: upper case, without "CAP_", however the pod spells them.
func capNames(list []corev1.Capability) []string {
	var out []string
	for _, c := range list {
		out = append(out, strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_"))
	}
	return out
}

// AppArmor returns the profile that a container asks for, itself or by its pod; nil: none.
func AppArmor(pod *corev1.Pod, c *corev1.Container) *corev1.AppArmorProfile {
	if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
		return c.SecurityContext.AppArmorProfile
	}
	if pod.Spec.SecurityContext != nil {
		return pod.Spec.SecurityContext.AppArmorProfile
	}
	return nil
}
