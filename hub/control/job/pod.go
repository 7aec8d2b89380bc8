package job

import (
	"fmt"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/internal/kube"
)

// indexEnv is the variable in which a container finds its completion index.
const indexEnv = "JOB_COMPLETION_INDEX"

// newPod returns a pod of the Job. It has the finalizer from the start, so that no end is missed.
func newPod(j *batchv1.Job) *corev1.Pod {
	p := podset.FromTemplate(j, kube.Job, &j.Spec.Template)
	if !tracked(p) {
		p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
	}
	return p
}

// newIndexedPod returns a pod of a completion index. last is the failed pod of that index which it follows, or nil.
func newIndexedPod(j *batchv1.Job, index int, last *corev1.Pod) *corev1.Pod {
	p, text := newPod(j), strconv.Itoa(index)
	suffix := "-" + text + "-"
	p.GenerateName = j.Name[:min(len(j.Name), 253-5-len(suffix))] + suffix
	p.Spec.Hostname = fmt.Sprintf("%s-%d", j.Name, index)
	set(&p.Annotations, batchv1.JobCompletionIndexAnnotation, text)
	set(&p.Labels, batchv1.JobCompletionIndexAnnotation, text)
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			addIndexEnv(&list[i])
		}
	}
	if j.Spec.BackoffLimitPerIndex == nil {
		return p
	}
	counted, ignored := int32(0), int32(0)
	if last != nil {
		counted, ignored = failuresOf(last)
		if judge(j.Spec.PodFailurePolicy, last).action == batchv1.PodFailurePolicyActionIgnore {
			ignored++
		} else {
			counted++
		}
	}
	set(&p.Annotations, batchv1.JobIndexFailureCountAnnotation, strconv.Itoa(int(counted)))
	if ignored > 0 {
		set(&p.Annotations, batchv1.JobIndexIgnoredFailureCountAnnotation, strconv.Itoa(int(ignored)))
	}
	return p
}

// addIndexEnv sets the variable from the pod's label, unless the template has one of that name.
func addIndexEnv(c *corev1.Container) {
	if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == indexEnv }) {
		return
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: indexEnv, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{
		FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation),
	}}})
}

func set(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}
