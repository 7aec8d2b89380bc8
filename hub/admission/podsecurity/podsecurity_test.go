package podsecurity_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/warning"

	"petrel.dev/petrel/hub/admission/podsecurity"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// recorder keeps warnings.
type recorder struct{ texts []string }

func (r *recorder) AddWarning(_, text string) { r.texts = append(r.texts, text) }

// check runs the step on a creation, or with old on an update, and returns its refusal and warnings.
func check(t *testing.T, s *podsecurity.Standards, gvk kube.GVK, plural, sub string, obj, old kube.Object) (refused string, warnings []string) {
	t.Helper()
	a := &registry.AdmissionRequest{Operation: registry.OpCreate, Object: obj, Old: old}
	if old != nil {
		a.Operation = registry.OpUpdate
	}
	a.Target = resource.Target{Kind: &resource.Kind{GVK: gvk, Plural: plural}, Name: obj.GetName(), Subresource: sub}
	r := &recorder{}
	if err := s.Check(warning.WithWarningRecorder(t.Context(), r), a); err != nil {
		refused = err.Error()
	}
	return refused, r.texts
}

func namespace(name string, labels ...string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		ns.Labels["pod-security.kubernetes.io/"+labels[i]] = labels[i+1]
	}
	return ns
}

func spec(change ...func(*corev1.PodSpec)) corev1.PodSpec {
	s := corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}
	for _, f := range change {
		f(&s)
	}
	return s
}

func pod(ns, name string, s corev1.PodSpec) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: s}
}

func hostNetwork(s *corev1.PodSpec) { s.HostNetwork = true }

const (
	atHost      = `host namespaces (hostNetwork=true)`
	unconfident = `allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), ` +
		`unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), ` +
		`runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), ` +
		`seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")`
)

// A namespace's labels decide which pods it takes, and of which it warns.
func TestPods(t *testing.T) {
	s := podsecurity.New(controltest.New(t, namespace("free"), namespace("base", "enforce", "baseline"), namespace("strict", "enforce", "restricted", "enforce-version", "v1.25"),
		namespace("warned", "enforce", "baseline", "warn", "restricted"), namespace("odd", "enforce", "paranoid"), namespace("quiet", "enforce", "baseline", "warn", "privileged")))
	for _, test := range []struct {
		ns, refused, warned string
		spec                corev1.PodSpec
	}{
		{"free", "", "", spec(hostNetwork)},
		{"base", "", "", spec()},
		{"base", `violates PodSecurity "baseline:latest": ` + atHost, "", spec(hostNetwork)},
		{"quiet", `violates PodSecurity "baseline:latest": ` + atHost, "", spec(hostNetwork)},
		{"strict", `violates PodSecurity "restricted:v1.25": ` + unconfident, "", spec()},
		{"warned", "", `would violate PodSecurity "restricted:latest": ` + unconfident, spec()},
		{"odd", `violates PodSecurity "restricted:latest": ` + unconfident, "", spec()},
	} {
		refused, warned := check(t, s, kube.Pod, "pods", "", pod(test.ns, "p", test.spec), nil)
		if test.refused != "" {
			test.refused = `pods "p" is forbidden: ` + test.refused
		}
		if refused != test.refused || strings.Join(warned, "; ") != test.warned {
			t.Errorf("in %s: %s, warnings %q\nwant %s, %s", test.ns, refused, warned, test.refused, test.warned)
		}
	}
}

// A pod that exists is checked again when an image changes or a container is added, and not when anything else does.
func TestUpdates(t *testing.T) {
	s := podsecurity.New(controltest.New(t, namespace("base", "enforce", "baseline")))
	old := pod("base", "p", spec(hostNetwork))
	labelled, image, debugged := old.DeepCopy(), old.DeepCopy(), old.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	image.Spec.Containers[0].Image = "other"
	debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
	const refused = `pods "p" is forbidden: violates PodSecurity "baseline:latest": ` + atHost
	for _, test := range []struct {
		pod       *corev1.Pod
		sub, want string
	}{{labelled, "", ""}, {image, "", refused}, {image, "status", ""}, {debugged, "ephemeralcontainers", refused}, {old, "resize", ""}} {
		if got, _ := check(t, s, kube.Pod, "pods", test.sub, test.pod, old); got != test.want {
			t.Errorf("%s: %s, want %s", test.sub, got, test.want)
		}
	}
}

// Workloads are never refused; their pods would be, so who makes one is warned.
func TestWorkloads(t *testing.T) {
	s := podsecurity.New(controltest.New(t, namespace("base", "enforce", "baseline"), namespace("free")))
	bad := corev1.PodTemplateSpec{Spec: spec(hostNetwork)}
	in := func(ns string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: "w"} }
	for _, make := range []func(ns string) kube.Object{
		func(ns string) kube.Object { return &corev1.PodTemplate{ObjectMeta: in(ns), Template: bad} },
		func(ns string) kube.Object {
			return &corev1.ReplicationController{ObjectMeta: in(ns), Spec: corev1.ReplicationControllerSpec{Template: &bad}}
		},
		func(ns string) kube.Object {
			return &appsv1.Deployment{ObjectMeta: in(ns), Spec: appsv1.DeploymentSpec{Template: bad}}
		},
		func(ns string) kube.Object {
			return &appsv1.ReplicaSet{ObjectMeta: in(ns), Spec: appsv1.ReplicaSetSpec{Template: bad}}
		},
		func(ns string) kube.Object {
			return &appsv1.DaemonSet{ObjectMeta: in(ns), Spec: appsv1.DaemonSetSpec{Template: bad}}
		},
		func(ns string) kube.Object {
			return &appsv1.StatefulSet{ObjectMeta: in(ns), Spec: appsv1.StatefulSetSpec{Template: bad}}
		},
		func(ns string) kube.Object {
			return &batchv1.Job{ObjectMeta: in(ns), Spec: batchv1.JobSpec{Template: bad}}
		},
		func(ns string) kube.Object {
			return &batchv1.CronJob{ObjectMeta: in(ns), Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: bad}}}}
		},
	} {
		refused, warned := check(t, s, kube.GVK{}, "workloads", "", make("base"), nil)
		if refused != "" || !slices.Equal(warned, []string{`would violate PodSecurity "baseline:latest": ` + atHost}) {
			t.Errorf("%T: %s, warnings %q", make(""), refused, warned)
		}
		if refused, warned := check(t, s, kube.GVK{}, "workloads", "", make("free"), nil); refused != "" || len(warned) > 0 {
			t.Errorf("%T in a privileged namespace: %s, warnings %q", make(""), refused, warned)
		}
	}
	if refused, warned := check(t, s, kube.GVK{}, "workloads", "", &corev1.ReplicationController{ObjectMeta: in("base")}, nil); refused != "" || len(warned) > 0 {
		t.Errorf("a workload without a template: %s, warnings %q", refused, warned)
	}
}

// A stricter level does not touch the pods that are there: who sets it is warned which it would refuse.
func TestNamespaces(t *testing.T) {
	objs := []kube.Object{namespace("ns")}
	yes := true
	for i := range 5 {
		p := pod("ns", fmt.Sprint("p", i), spec(hostNetwork))
		if i < 4 {
			p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID("rs"), Controller: &yes}}
		} else {
			p.Spec.HostPID = true
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
		}
		objs = append(objs, p)
	}
	s := podsecurity.New(controltest.New(t, objs...))
	const bad = `Namespace "ns" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "paranoid": must be one of privileged, baseline, restricted`
	odd, base, free := namespace("ns", "enforce", "paranoid"), namespace("ns", "enforce", "baseline"), namespace("ns")
	headline := `existing pods in namespace "ns" violate the new PodSecurity enforce level "baseline:latest"`
	for name, test := range map[string]struct {
		next, old *corev1.Namespace
		refused   string
		warned    []string
	}{
		"new":          {base, nil, "", nil},
		"new, odd":     {odd, nil, bad, nil},
		"made odd":     {odd, free, bad, nil},
		"odd before":   {odd, odd, "", nil},
		"stricter":     {base, free, "", []string{headline, "p0 (and 3 other pods): host namespaces", "p4: host namespaces, privileged"}},
		"as strict":    {base, base, "", nil},
		"less strict":  {free, base, "", nil},
		"only labels":  {namespace("ns", "audit", "restricted", "warn", "restricted"), free, "", nil},
		"less, latest": {base, namespace("ns", "enforce", "restricted"), "", nil},
	} {
		var old kube.Object
		if test.old != nil {
			old = test.old
		}
		refused, warned := check(t, s, kube.Namespace, "namespaces", "", test.next, old)
		if refused != test.refused || !slices.Equal(warned, test.warned) {
			t.Errorf("%s: %s, warnings %q\nwant %s, %q", name, refused, warned, test.refused, test.warned)
		}
	}
	if refused, _ := check(t, s, kube.Pod, "pods", "", pod("none", "p", spec()), nil); !strings.Contains(refused, `failed to lookup namespace "none"`) {
		t.Errorf("a pod of no namespace: %s", refused)
	}
}
