package classes_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/admission/classes"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	kinds "petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// write is a creation, or with old an update.
func write(plural string, obj, old kube.Object) *registry.AdmissionRequest {
	a := &registry.AdmissionRequest{Operation: registry.OpCreate, Object: obj, Old: old}
	if old != nil {
		a.Operation = registry.OpUpdate
	}
	a.Target = kinds.Target{Kind: &kinds.Kind{Plural: plural}, Name: obj.GetName()}
	return a
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("error %s\n want %s", got, want)
	}
}

// A pod gets what its RuntimeClass adds, and is refused where the two contradict each other.
func TestRuntimeClass(t *testing.T) {
	fixed := corev1.ResourceList{"cpu": resource.MustParse("10m")}
	seconds := int64(60)
	c := classes.New(controltest.New(t,
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Handler: "runc"},
		&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "boxed"}, Handler: "runsc", Overhead: &nodev1.Overhead{PodFixed: fixed},
			Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"boxes": "yes"}, Tolerations: []corev1.Toleration{
				{Key: "boxes", Operator: corev1.TolerationOpExists},
				{Key: "gone", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds},
			}}}))
	for name, test := range map[string]struct {
		class  string
		change func(*corev1.PodSpec)
		want   string
	}{
		"none":             {"", func(*corev1.PodSpec) {}, ""},
		"plain":            {"plain", func(*corev1.PodSpec) {}, ""},
		"same overhead":    {"boxed", func(s *corev1.PodSpec) { s.Overhead = fixed.DeepCopy() }, ""},
		"missing":          {"missing", func(*corev1.PodSpec) {}, `RuntimeClass "missing" not found`},
		"overhead of none": {"", func(s *corev1.PodSpec) { s.Overhead = fixed }, "Pod Overhead set without corresponding RuntimeClass defined Overhead"},
		"overhead, plain":  {"plain", func(s *corev1.PodSpec) { s.Overhead = fixed }, "Pod Overhead set without corresponding RuntimeClass defined Overhead"},
		"other overhead": {"boxed", func(s *corev1.PodSpec) { s.Overhead = corev1.ResourceList{"cpu": resource.MustParse("1")} },
			"Pod's Overhead doesn't match RuntimeClass's defined Overhead"},
		"other node": {"boxed", func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"boxes": "no"} },
			"conflict: runtimeClass.scheduling.nodeSelector[boxes] = yes; pod.spec.nodeSelector[boxes] = no"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
			if test.class != "" {
				p.Spec.RuntimeClassName = &test.class
			}
			test.change(&p.Spec)
			a := write("pods", p, nil)
			err := c.CompletePod(t.Context(), a)
			if err == nil {
				err = c.CheckPod(t.Context(), a)
			}
			want := test.want
			if want != "" && name != "other node" {
				want = "pod rejected: " + want
			}
			if want != "" {
				want = `pods "p" is forbidden: ` + want
			}
			wantError(t, err, want)
		})
	}

	class, short := "boxed", int64(5)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{
		RuntimeClassName: &class, NodeSelector: map[string]string{"disk": "ssd"}, Tolerations: []corev1.Toleration{
			{Key: "boxes", Operator: corev1.TolerationOpEqual, Value: "1", Effect: corev1.TaintEffectNoSchedule},
			{Key: "gone", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &short},
			{Key: "mine", Operator: corev1.TolerationOpExists},
		}}}
	if err := c.CompletePod(t.Context(), write("pods", p, nil)); err != nil {
		t.Fatal(err)
	}
	want := []corev1.Toleration{
		{Key: "mine", Operator: corev1.TolerationOpExists},
		{Key: "boxes", Operator: corev1.TolerationOpExists},
		{Key: "gone", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds},
	}
	if !apiequality.Semantic.DeepEqual(p.Spec.Overhead, fixed) || !apiequality.Semantic.DeepEqual(p.Spec.Tolerations, want) ||
		!apiequality.Semantic.DeepEqual(p.Spec.NodeSelector, map[string]string{"disk": "ssd", "boxes": "yes"}) {
		t.Errorf("pod: %+v", p.Spec)
	}
}

func made(name string, age time.Duration, annotation string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-age))}
	if annotation != "" {
		m.Annotations = map[string]string{annotation: "true"}
	}
	return m
}

// Of several default classes the newest counts; of several of one second the first by name.
func TestDefaultClasses(t *testing.T) {
	const storage, old, ingress = "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class", "ingressclass.kubernetes.io/is-default-class"
	c := classes.New(controltest.New(t,
		&storagev1.StorageClass{ObjectMeta: made("none", 0, "")}, &storagev1.StorageClass{ObjectMeta: made("b", time.Hour, storage)},
		&storagev1.StorageClass{ObjectMeta: made("a", time.Hour, old)}, &storagev1.StorageClass{ObjectMeta: made("older", 2*time.Hour, storage)},
		&networkingv1.IngressClass{ObjectMeta: made("web", time.Hour, ingress)}, &networkingv1.IngressClass{ObjectMeta: made("newest", 0, "")}))
	asked, none := "asked", ""
	for _, test := range []struct {
		have       *string
		annotation string
		want       string // "-": none
	}{{nil, "", "a"}, {&asked, "", "asked"}, {&none, "", ""}, {nil, "old", "-"}} {
		claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: test.have}}
		if test.annotation != "" {
			claim.Annotations = map[string]string{corev1.BetaStorageClassAnnotation: test.annotation}
		}
		if err := c.DefaultClaim(t.Context(), write("persistentvolumeclaims", claim, nil)); err != nil {
			t.Fatal(err)
		}
		got := "-"
		if claim.Spec.StorageClassName != nil {
			got = *claim.Spec.StorageClassName
		}
		if got != test.want {
			t.Errorf("claim of %+v got class %q", test, got)
		}
	}

	in := &networkingv1.Ingress{}
	if err := c.DefaultIngress(t.Context(), write("ingresses", in, nil)); err != nil || in.Spec.IngressClassName == nil || *in.Spec.IngressClassName != "web" {
		t.Errorf("ingress: %v, %v", err, in.Spec.IngressClassName)
	}
	in = &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"kubernetes.io/ingress.class": "x"}}}
	if err := c.DefaultIngress(t.Context(), write("ingresses", in, nil)); err != nil || in.Spec.IngressClassName != nil {
		t.Errorf("an Ingress with the annotation: %v, %v", err, in.Spec.IngressClassName)
	}
}

// A claim grows only while it is bound, and only where its class allows it.
func TestResize(t *testing.T) {
	yes := true
	c := classes.New(controltest.New(t, &storagev1.StorageClass{ObjectMeta: made("grows", 0, ""), AllowVolumeExpansion: &yes}, &storagev1.StorageClass{ObjectMeta: made("fixed", 0, "")}))
	claim := func(class, size string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Status: corev1.PersistentVolumeClaimStatus{Phase: phase},
			Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{"storage": resource.MustParse(size)}}}}
	}
	const refused = `persistentvolumeclaims "c" is forbidden: `
	const fixed = refused + "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
	for _, test := range []struct {
		class string
		phase corev1.PersistentVolumeClaimPhase
		to    string
		want  string
	}{
		{"grows", corev1.ClaimBound, "2Gi", ""}, {"fixed", corev1.ClaimBound, "1Gi", ""}, {"fixed", corev1.ClaimBound, "2Gi", fixed},
		{"", corev1.ClaimBound, "2Gi", fixed}, {"missing", corev1.ClaimBound, "2Gi", fixed},
		{"grows", corev1.ClaimPending, "2Gi", refused + "Only bound persistent volume claims can be expanded"},
	} {
		err := c.CheckResize(t.Context(), write("persistentvolumeclaims", claim(test.class, test.to, test.phase), claim(test.class, "1Gi", test.phase)))
		wantError(t, err, test.want)
	}
}

// New claims and volumes stay while they are in use.
func TestProtect(t *testing.T) {
	c := classes.New(controltest.New(t))
	for _, test := range []struct {
		obj  kube.Object
		want string
	}{
		{&corev1.PersistentVolumeClaim{}, "kubernetes.io/pvc-protection"}, {&corev1.PersistentVolume{}, "kubernetes.io/pv-protection"},
		{&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"kubernetes.io/pv-protection"}}}, "kubernetes.io/pv-protection"},
		{&corev1.ConfigMap{}, ""},
	} {
		for range 2 { // a step may run again
			if err := c.Protect(t.Context(), write("things", test.obj, nil)); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(test.obj.GetFinalizers(), " "); got != test.want {
			t.Errorf("%T has finalizers %q", test.obj, got)
		}
	}
}
