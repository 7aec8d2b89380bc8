// Package downward is the downward API: fields of a pod and resources of its containers as texts, for variables and volumes.
package downward

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"petrel.dev/petrel/internal/kube"
)

// Field is the text of a metadata field in the downward API.
func Field(pod *corev1.Pod, path string) (string, error) {
	if base, key, ok := subscript(path); ok {
		switch base {
		case "metadata.annotations":
			return pod.Annotations[key], nil
		case "metadata.labels":
			return pod.Labels[key], nil
		}
		return "", fmt.Errorf("unsupported fieldPath: %s", path)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %s", path)
}

// subscript splits "metadata.labels['key']".
func subscript(path string) (base, key string, ok bool) {
	i := strings.Index(path, "['")
	if i < 0 || !strings.HasSuffix(path, "']") {
		return "", "", false
	}
	return path[:i], path[i+2 : len(path)-2], true
}

// formatMap writes labels or annotations as key="value", one a line, sorted: the file must not change without a cause.
func formatMap(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	lines := make([]string, len(keys))
	for i, k := range keys {
		lines[i] = k + "=" + strconv.Quote(m[k])
	}
	return strings.Join(lines, "\n")
}

// ResourceField is a container's request or limit, divided by the wanted unit and rounded up. For a limit that is not set
// stands that of the pod, or else what the node has for pods.
func ResourceField(ref *corev1.ResourceFieldSelector, pod *corev1.Pod, c *corev1.Container, allocatable corev1.ResourceList) (string, error) {
	part, name, _ := strings.Cut(ref.Resource, ".")
	res := corev1.ResourceName(name)
	var q resource.Quantity
	switch part {
	case "limits":
		var ok bool
		if q, ok = c.Resources.Limits[res]; !ok || q.IsZero() {
			if q = kube.PodLevelLimits(pod)[res]; q.IsZero() {
				q = allocatable[res]
			}
		}
	case "requests":
		var ok bool
		if q, ok = c.Resources.Requests[res]; !ok {
			q = c.Resources.Limits[res]
		}
	default:
		return "", fmt.Errorf("unsupported container resource: %s", ref.Resource)
	}
	unit := ref.Divisor
	if unit.IsZero() {
		unit = resource.MustParse("1")
	}
	if res == corev1.ResourceCPU {
		return strconv.FormatInt(ceilDiv(q.MilliValue(), unit.MilliValue()), 10), nil
	}
	return strconv.FormatInt(ceilDiv(q.Value(), unit.Value()), 10), nil
}

// ceilDiv divides and rounds up, as the API asks for: a container never believes that it has less than it has.
func ceilDiv(a, b int64) int64 {
	return int64(math.Ceil(float64(a) / float64(b)))
}
