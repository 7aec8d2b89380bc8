package limits_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/admission/limits"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	kinds "petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func ranged(name string, items ...corev1.LimitRangeItem) *corev1.LimitRange {
	return &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.LimitRangeSpec{Limits: items}}
}

func container(name string, requests, limits corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
}

func pod(init corev1.Container, cs ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
		Spec: corev1.PodSpec{InitContainers: []corev1.Container{init}, Containers: cs}}
}

// write is a creation, or with old an update.
func write(t *testing.T, gvk kube.GVK, sub string, obj, old kube.Object) *registry.AdmissionRequest {
	t.Helper()
	a := &registry.AdmissionRequest{Operation: registry.OpCreate, Object: obj, Old: old}
	if old != nil {
		a.Operation = registry.OpUpdate
	}
	k, ok := builtin.New().Lookup(gvk)
	if !ok {
		k = &kinds.Kind{GVK: gvk, Plural: "persistentvolumeclaims", Namespaced: true}
	}
	a.Target = kinds.Target{Kind: k, Namespace: "ns", Name: obj.GetName(), Subresource: sub}
	return a
}

func admit(ctx context.Context, r *limits.Ranges, a *registry.AdmissionRequest) error {
	if err := r.Default(ctx, a); err != nil {
		return err
	}
	return r.Check(ctx, a)
}

// A container gets what it leaves open, says where it came from, and keeps what it has.
func TestDefaults(t *testing.T) {
	r := limits.New(controltest.New(t, ranged("lr", corev1.LimitRangeItem{Type: corev1.LimitTypeContainer,
		DefaultRequest: list("cpu", "100m", "memory", "200Mi"), Default: list("cpu", "500m", "memory", "500Mi")})))
	p := pod(container("i", nil, nil), container("c", list("cpu", "300m"), list("memory", "1Gi")), container("full", list("cpu", "1", "memory", "1Gi"), list("cpu", "1", "memory", "1Gi")))
	if err := admit(t.Context(), r, write(t, kube.Pod, "", p, nil)); err != nil {
		t.Fatal(err)
	}
	c := p.Spec.Containers[0].Resources
	if c.Requests.Cpu().String() != "300m" || c.Requests.Memory().String() != "200Mi" || c.Limits.Cpu().String() != "500m" || c.Limits.Memory().String() != "1Gi" {
		t.Errorf("container: %v", c)
	}
	if i := p.Spec.InitContainers[0].Resources; i.Requests.Cpu().String() != "100m" || i.Limits.Memory().String() != "500Mi" {
		t.Errorf("init container: %v", i)
	}
	const want = "LimitRanger plugin set: memory request for container c; cpu limit for container c; " +
		"cpu, memory request for init container i; cpu, memory limit for init container i"
	if got := p.Annotations["kubernetes.io/limit-ranger"]; got != want {
		t.Errorf("annotation\n%s, want\n%s", got, want)
	}

	elsewhere := pod(container("i", nil, nil), container("c", nil, nil))
	elsewhere.Namespace = "other"
	a := write(t, kube.Pod, "", elsewhere, nil)
	if err := admit(t.Context(), r, a); err != nil || len(elsewhere.Spec.Containers[0].Resources.Requests) > 0 {
		t.Errorf("a pod of another namespace: %v, %v", err, elsewhere.Spec.Containers[0].Resources)
	}
	old := pod(container("i", nil, nil), container("c", nil, nil))
	if err := admit(t.Context(), r, write(t, kube.Pod, "", old, old.DeepCopy())); err != nil || old.Annotations != nil {
		t.Errorf("a pod that exists: %v, %v", err, old.Annotations)
	}
}

func TestRefusals(t *testing.T) {
	one := func(requests, limits corev1.ResourceList) *corev1.Pod {
		return pod(container("i", list("cpu", "200m"), list("cpu", "200m")), container("c", requests, limits))
	}
	of := func(kind corev1.LimitType, change func(*corev1.LimitRangeItem)) *corev1.LimitRange {
		item := corev1.LimitRangeItem{Type: kind}
		change(&item)
		return ranged("lr", item)
	}
	least := func(l *corev1.LimitRangeItem) { l.Min = list("cpu", "100m") }
	most := func(l *corev1.LimitRangeItem) { l.Max = list("cpu", "1") }
	ratio := func(l *corev1.LimitRangeItem) { l.MaxLimitRequestRatio = list("cpu", "1500m") }
	for name, test := range map[string]struct {
		lr   *corev1.LimitRange
		pod  *corev1.Pod
		want string
	}{
		"fits":          {of("Container", least), one(list("cpu", "100m"), nil), ""},
		"no request":    {of("Container", least), one(nil, nil), "minimum cpu usage per Container is 100m.  No request is specified"},
		"low request":   {of("Container", least), one(list("cpu", "50m"), nil), "minimum cpu usage per Container is 100m, but request is 50m"},
		"low limit":     {of("Container", least), one(list("cpu", "100m"), list("cpu", "20m")), "minimum cpu usage per Container is 100m, but limit is 20m"},
		"no limit":      {of("Container", most), one(list("cpu", "1"), nil), "maximum cpu usage per Container is 1.  No limit is specified"},
		"high limit":    {of("Container", most), one(nil, list("cpu", "1500m")), "maximum cpu usage per Container is 1, but limit is 1500m"},
		"high request":  {of("Container", most), one(list("cpu", "2"), list("cpu", "1")), "maximum cpu usage per Container is 1, but request is 2"},
		"ratio":         {of("Container", ratio), one(list("cpu", "100m"), list("cpu", "150m")), ""},
		"high ratio":    {of("Container", ratio), one(list("cpu", "100m"), list("cpu", "200m")), "cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000"},
		"ratio of none": {of("Container", ratio), one(nil, list("cpu", "200m")), "cpu max limit to request ratio per Container is 1500m, but no request is specified or request is 0"},
		"ratio, no limit": {of("Container", ratio), one(list("cpu", "1"), nil),
			"cpu max limit to request ratio per Container is 1500m, but no limit is specified or limit is 0"},
		"whole pod": {of("Pod", most), pod(container("i", nil, nil), container("a", nil, list("cpu", "600m")), container("b", nil, list("cpu", "600m"))),
			"maximum cpu usage per Pod is 1, but limit is 1200m"},
		"large init container": {of("Pod", most), pod(container("i", nil, list("cpu", "2")), container("a", nil, list("cpu", "1"))),
			"maximum cpu usage per Pod is 1, but limit is 2"},
		"each": {of("Container", func(l *corev1.LimitRangeItem) { l.Min = list("cpu", "200m", "memory", "1Mi") }), one(list("cpu", "100m"), nil),
			"[minimum cpu usage per Container is 200m, but request is 100m, minimum memory usage per Container is 1Mi.  No request is specified]"},
	} {
		t.Run(name, func(t *testing.T) {
			err := admit(t.Context(), limits.New(controltest.New(t, test.lr)), write(t, kube.Pod, "", test.pod, nil))
			want := test.want
			if want != "" {
				want = `pods "p" is forbidden: ` + want
			}
			if got := text(err); got != want {
				t.Errorf("error %s\n want %s", got, want)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Resizing a pod is held to the same ranges; what is being deleted is let go.
func TestResize(t *testing.T) {
	r := limits.New(controltest.New(t, ranged("lr", corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Max: list("cpu", "1")})))
	small := pod(container("i", nil, list("cpu", "1")), container("c", nil, list("cpu", "1")))
	large := pod(container("i", nil, list("cpu", "1")), container("c", nil, list("cpu", "2")))
	const want = `pods "p" is forbidden: maximum cpu usage per Container is 1, but limit is 2`
	if got := text(admit(t.Context(), r, write(t, kube.Pod, "resize", large, small))); got != want {
		t.Errorf("resize: %s", got)
	}
	if err := admit(t.Context(), r, write(t, kube.Pod, "status", large, small)); err != nil {
		t.Errorf("status: %v", err)
	}
	small.DeletionTimestamp = &metav1.Time{}
	if err := admit(t.Context(), r, write(t, kube.Pod, "resize", large, small)); err != nil {
		t.Errorf("while it is deleted: %v", err)
	}
}

// Claims are held to what they request, created and grown.
func TestClaims(t *testing.T) {
	r := limits.New(controltest.New(t, ranged("lr", corev1.LimitRangeItem{Type: corev1.LimitTypePersistentVolumeClaim,
		Min: list("storage", "1Gi"), Max: list("storage", "5Gi")})))
	claim := func(size string) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}}
		if size != "" {
			c.Spec.Resources.Requests = list("storage", size)
		}
		return c
	}
	for size, want := range map[string]string{
		"1Gi": "", "5Gi": "",
		"500Mi": "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi",
		"6Gi":   "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi",
		"":      "[minimum storage usage per PersistentVolumeClaim is 1Gi.  No request is specified, maximum storage usage per PersistentVolumeClaim is 5Gi.  No request is specified]",
	} {
		if want != "" {
			want = `persistentvolumeclaims "c" is forbidden: ` + want
		}
		for _, old := range []kube.Object{nil, claim("2Gi")} {
			if got := text(admit(t.Context(), r, write(t, corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), "", claim(size), old))); got != want {
				t.Errorf("%s: %s\nwant %s", size, got, want)
			}
		}
	}
}
