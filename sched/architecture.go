package sched

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// system refuses nodes of another operating system than the pod's spec.os says.
type system struct {
	settled
	want string
}

func (f *system) prepare(_ *Snapshot, p *Pod) bool {
	if p.Object.Spec.OS == nil {
		return false
	}
	f.want = string(p.Object.Spec.OS.Name)
	return true
}
func (f *system) allows(n *node) bool { return n.os == "" || n.os == f.want }
func (f *system) cures() Change       { return NodeCame | NodeLabels }
func (f *system) reasons(n *node) []string {
	return []string{fmt.Sprintf("node(s) had operating system %s, the pod is for %s", n.os, f.want)}
}

// archOf returns a node's architecture, and its variant where that is known.
func archOf(obj *corev1.Node) (arch, variant string) {
	if arch = obj.Labels[corev1.LabelArchStable]; arch == "" {
		arch = obj.Status.NodeInfo.Architecture
	}
	return arch, obj.Labels[kube.ArchVariantLabel]
}

// annotated are the architectures that the pod's owner says its images exist for.
func annotated(pod *corev1.Pod) []string {
	return strings.FieldsFunc(pod.Annotations[kube.ArchitecturesAnnotation], func(r rune) bool { return r == ',' || r == ' ' })
}

// architecture refuses nodes for which one of the pod's images is known not to exist: there such a pod would only ever wait
// for its image.
type architecture struct {
	settled
	images map[string][]string
	pod    *Pod
}

func (f *architecture) prepare(s *Snapshot, p *Pod) bool {
	f.images, f.pod = s.images, p
	for _, image := range p.images {
		if len(f.known(image)) > 0 {
			return true
		}
	}
	return false
}

func (f *architecture) known(image string) []string {
	if len(f.pod.architectures) > 0 {
		return f.pod.architectures
	}
	return f.images[image]
}

// missing returns the first image that does not exist for n; "" when there is none, or n's architecture is not known.
func (f *architecture) missing(n *node) string {
	if n.arch == "" {
		return ""
	}
	for _, image := range f.pod.images {
		known, found := f.known(image), false
		for _, a := range known {
			found = found || runs(n.arch, n.variant, a)
		}
		if len(known) > 0 && !found {
			return image
		}
	}
	return ""
}

func (f *architecture) cures() Change { return NodeCame | NodeLabels | ImageSeen }

func (f *architecture) allows(n *node) bool { return f.missing(n) == "" }

func (f *architecture) reasons(n *node) []string {
	image := f.missing(n)
	return []string{fmt.Sprintf("node(s) had architecture %s, for which there is no image %s (only for %s)",
		platform(n.arch, n.variant), image, strings.Join(f.known(image), " "))}
}

func platform(arch, variant string) string {
	if variant == "" {
		return arch
	}
	return arch + "/" + variant
}

// runs reports whether a node can run what was built for a platform, by containerd's rules, which decide in the end: a
// 64-bit machine takes its 32-bit sibling's, an ARM one what was built for its own variant or an older one. A variant that
// one side does not name is no obstacle.
func runs(arch, variant, built string) bool {
	builtArch, builtVariant, _ := strings.Cut(built, "/")
	switch {
	case arch == "arm64" && builtArch == "arm", arch == "amd64" && builtArch == "386":
		return true
	case arch != builtArch:
		return false
	case arch != "arm" || variant == "" || builtVariant == "":
		return true
	}
	have, err1 := strconv.Atoi(strings.TrimPrefix(variant, "v"))
	need, err2 := strconv.Atoi(strings.TrimPrefix(builtVariant, "v"))
	return err1 != nil || err2 != nil || need <= have
}
