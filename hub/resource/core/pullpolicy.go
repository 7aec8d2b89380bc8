package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/kube"
)

// withPullPolicies returns the defaults of pods with those of the pull policies before: upstream takes each image's name apart by regular
// expressions, which costs more than all other defaults together, to find one tag.
func withPullPolicies(defaults func(kube.Object)) func(kube.Object) {
	return func(obj kube.Object) {
		spec := &obj.(*corev1.Pod).Spec
		for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
			for i := range list {
				if c := &list[i]; c.ImagePullPolicy == "" && fixedTag(c.Image) {
					c.ImagePullPolicy = corev1.PullIfNotPresent
				}
			}
		}
		defaults(obj)
	}
}

// fixedTag reports whether an image surely has another tag than "latest", or a name that is none; both have the default IfNotPresent. It is
// false where it takes more than a look at the end of the name: without a tag, and with a digest.
func fixedTag(image string) bool {
	if strings.Contains(image, "@") {
		return false
	}
	_, tag, tagged := strings.Cut(image[strings.LastIndexByte(image, '/')+1:], ":")
	return tagged && tag != "" && tag != "latest"
}
