package admission

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/kube"
)

func pod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "i", Image: "i"}},
			Containers:     []corev1.Container{{Name: "c", Image: "i"}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func TestNamespaceLifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive), namespace("going", corev1.NamespaceTerminating)))
		config := func(ns string) *corev1.ConfigMap {
			return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "a"}}
		}
		if err := admit(t.Context(), c, config("ns"), nil); err != nil {
			t.Error(err)
		}
		wantError(t, admit(t.Context(), c, config("none"), nil), `namespaces "none" not found`)
		err := admit(t.Context(), c, config("going"), nil)
		wantError(t, err, `configmaps "a" is forbidden: unable to create new content in namespace going because it is being terminated`)
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			t.Error("the refusal does not carry its cause, by which clients know it")
		}
		if err := admit(t.Context(), c, config("going"), config("going")); err != nil {
			t.Errorf("an update in a terminating namespace: %v", err)
		}
		if err := admit(t.Context(), c, nil, config("going")); err != nil {
			t.Errorf("a deletion in a terminating namespace: %v", err)
		}
		for _, name := range []string{"default", "kube-system", "kube-public"} {
			wantError(t, admit(t.Context(), c, nil, namespace(name, corev1.NamespaceActive)),
				fmt.Sprintf("namespaces %q is forbidden: this namespace may not be deleted", name))
		}
		if err := admit(t.Context(), c, nil, namespace("ns", corev1.NamespaceActive)); err != nil {
			t.Error(err)
		}
	})
}

// What was committed a moment ago may not show yet: creations in a new namespace wait for it to show, and for its default
// account to be made.
// TestReviewsEnterNoNamespace checks that what may be done in a namespace can be asked before it exists and while it ends.
func TestReviewsEnterNoNamespace(t *testing.T) {
	s := newStore(namespace("going", corev1.NamespaceTerminating))
	for _, ns := range []string{"none", "going"} {
		review := &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: ns}}
		review.SetGroupVersionKind(kube.LocalSubjectAccessReview)
		if err := admit(t.Context(), newChain(t, s), review, nil); err != nil {
			t.Errorf("in namespace %s: %v", ns, err)
		}
	}
}

func TestWaitsForNewNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.behind = make(chan struct{})
		c := newChain(t, s)
		go func() {
			time.Sleep(20 * time.Millisecond)
			s.put(namespace("ns", corev1.NamespaceActive))
			close(s.behind)
			time.Sleep(500 * time.Millisecond)
			s.put(account("ns", "default"))
		}()
		if err := admit(t.Context(), c, pod(), nil); err != nil {
			t.Error(err)
		}
	})
}

// A hub that starts for the first time makes its own namespaces while clients come already.
func TestWaitsForTheHubsOwnNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		c := newChain(t, s)
		go func() {
			time.Sleep(500 * time.Millisecond)
			s.put(namespace("default", corev1.NamespaceActive))
		}()
		began := time.Now()
		for ns, want := range map[string]string{"default": "", "kube-public": `namespaces "kube-public" not found`, "mine": `namespaces "mine" not found`} {
			err := admit(t.Context(), c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "a"}}, nil)
			if (want == "") != (err == nil) || err != nil && err.Error() != want {
				t.Errorf("in %s: %v, want %q", ns, err, want)
			}
		}
		if took := time.Since(began); took > 2*awaitTime {
			t.Errorf("waited for %s", took)
		}
	})
}

// A hub whose cache does not get there says so, and does not take what it could not check.
func TestCacheThatStaysBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(namespace("ns", corev1.NamespaceActive), account("ns", "default"))
		s.behind = make(chan struct{})
		c := newChain(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := admit(ctx, c, pod(), pod()); err != nil {
			t.Errorf("an update reads nothing else: %v", err)
		}
		wantError(t, admit(ctx, c, pod(), nil),
			"The create operation against pods could not be completed at this time, please try again.")
	})
}

func TestServiceAccount(t *testing.T) {
	no := false
	robot := account("ns", "robot")
	robot.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	quiet := account("ns", "quiet")
	quiet.AutomountServiceAccountToken = &no
	s := newStore(namespace("ns", corev1.NamespaceActive), account("ns", "default"), robot, quiet)
	c := newChain(t, s)

	p := pod()
	if err := admit(context.Background(), c, p, nil); err != nil {
		t.Fatal(err)
	}
	if p.Spec.ServiceAccountName != "default" || p.Spec.DeprecatedServiceAccount != "default" {
		t.Errorf("account %q, %q", p.Spec.ServiceAccountName, p.Spec.DeprecatedServiceAccount)
	}
	if len(p.Spec.Volumes) != 1 || !strings.HasPrefix(p.Spec.Volumes[0].Name, "kube-api-access-") || len(p.Spec.Volumes[0].Name) != len("kube-api-access-")+5 {
		t.Fatalf("volumes = %+v", p.Spec.Volumes)
	}
	sources := p.Spec.Volumes[0].Projected.Sources
	if len(sources) != 3 || *sources[0].ServiceAccountToken.ExpirationSeconds != 3607 || sources[1].ConfigMap.Name != "kube-root-ca.crt" ||
		sources[2].DownwardAPI.Items[0].FieldRef.FieldPath != "metadata.namespace" || *p.Spec.Volumes[0].Projected.DefaultMode != 0o644 {
		t.Errorf("sources = %+v", sources)
	}
	for _, container := range append(p.Spec.InitContainers, p.Spec.Containers...) {
		if len(container.VolumeMounts) != 1 || container.VolumeMounts[0].Name != p.Spec.Volumes[0].Name || !container.VolumeMounts[0].ReadOnly ||
			container.VolumeMounts[0].MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" {
			t.Errorf("%s mounts %+v", container.Name, container.VolumeMounts)
		}
	}

	p = pod(func(p *corev1.Pod) { p.Spec.DeprecatedServiceAccount = "robot" })
	if err := admit(context.Background(), c, p, nil); err != nil || p.Spec.ServiceAccountName != "robot" || p.Spec.ImagePullSecrets[0].Name != "pull" {
		t.Errorf("robot: %+v, %v", p.Spec, err)
	}
	p.Spec.ImagePullSecrets[0].Name = "changed"
	if robot.ImagePullSecrets[0].Name != "pull" {
		t.Error("the pod shares memory with the stored account")
	}
	for name, p := range map[string]*corev1.Pod{
		"the account says no": pod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "quiet" }),
		"the pod says no":     pod(func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = &no }),
	} {
		if err := admit(context.Background(), c, p, nil); err != nil || len(p.Spec.Volumes) != 0 {
			t.Errorf("%s: volumes %+v, %v", name, p.Spec.Volumes, err)
		}
	}
}

func TestServiceAccountMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive)))
		wantError(t, admit(t.Context(), c, pod(), nil),
			`pods "p" is forbidden: error looking up service account ns/default: serviceaccount "default" not found`)
		generated := pod(func(p *corev1.Pod) { p.Name, p.GenerateName, p.Spec.ServiceAccountName = "", "web-", "robot" })
		wantError(t, admit(t.Context(), c, generated, nil),
			`pods "web-" is forbidden: error looking up service account ns/robot: serviceaccount "robot" not found`)
	})
}

func TestServiceAccountSecrets(t *testing.T) {
	sa := account("ns", "default")
	sa.Annotations = map[string]string{mountableSecrets: "true"}
	sa.Secrets = []corev1.ObjectReference{{Name: "mine"}}
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive), sa))
	uses := func(secret string) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}}
		})
	}
	if err := admit(context.Background(), c, uses("mine"), nil); err != nil {
		t.Error(err)
	}
	wantError(t, admit(context.Background(), c, uses("other"), nil),
		`pods "p" is forbidden: volume with secret.secretName="other" is not allowed because service account default does not reference that secret`)
	env := pod(func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "other"}}}}
	})
	wantError(t, admit(context.Background(), c, env, nil),
		`pods "p" is forbidden: container c with envFrom referencing secret.secretName="other" is not allowed because service account default does not reference that secret`)
}

// TestEphemeralContainersSecrets checks that a container that is added later reads no secret that its pod may not read.
func TestEphemeralContainersSecrets(t *testing.T) {
	sa := account("ns", "default")
	sa.Annotations = map[string]string{mountableSecrets: "true"}
	sa.Secrets = []corev1.ObjectReference{{Name: "mine"}}
	add := func(c *Chain, secret string) error {
		old := pod(func(p *corev1.Pod) {
			p.Spec.ServiceAccountName = "default"
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "of an earlier rule"}}
		})
		p := old.DeepCopy()
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "d",
			Env: []corev1.EnvVar{{Name: "e", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}}}}}}}
		a := request(p, old)
		a.Target.Subresource = "ephemeralcontainers"
		if err := c.Mutate(t.Context(), a); err != nil {
			return err
		}
		return c.Validate(t.Context(), a)
	}
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive), sa))
	if err := add(c, "mine"); err != nil {
		t.Error(err)
	}
	wantError(t, add(c, "other"), `pods "p" is forbidden: ephemeral container d with envVar e referencing secret.secretName="other" is not allowed because service account default does not reference that secret`)
	wantError(t, add(newChain(t, newStore(namespace("ns", corev1.NamespaceActive))), "mine"),
		`pods "p" is forbidden: error looking up service account ns/default: serviceaccount "default" not found`)
}

func TestMirrorPod(t *testing.T) {
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive)))
	mirror := func(change func(*corev1.Pod)) *corev1.Pod {
		return pod(func(p *corev1.Pod) { p.Annotations = map[string]string{mirrorPod: "x"}; change(p) })
	}
	plain := mirror(func(*corev1.Pod) {})
	if err := admit(context.Background(), c, plain, nil); err != nil || len(plain.Spec.Volumes) > 0 {
		t.Errorf("%+v, %v", plain.Spec.Volumes, err)
	}
	wantError(t, admit(context.Background(), c, mirror(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "a" }), nil),
		`pods "p" is forbidden: a mirror pod may not reference service accounts`)
}

func TestTolerations(t *testing.T) {
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive), account("ns", "default")))
	annotated := func(value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{kube.AutonomyAnnotation: value} }
	}
	tolerates := func(t corev1.Toleration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{t} }
	}
	for name, x := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"by default": {pod(), "[not-ready 300] [unreachable 300]"},
		"forever":    {pod(annotated("forever")), "[not-ready ever] [unreachable ever]"},
		"an hour":    {pod(annotated("1h")), "[not-ready 3600] [unreachable 3600]"},
		"its own": {pod(tolerates(corev1.Toleration{Key: kube.TaintUnreachable, Operator: "Exists", Effect: "NoExecute"})),
			"[unreachable ever] [not-ready 300]"},
		"everything": {pod(tolerates(corev1.Toleration{Operator: "Exists"})), "[ ever]"},
	} {
		if err := admit(context.Background(), c, x.pod, nil); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, tol := range x.pod.Spec.Tolerations {
			stay := "ever"
			if tol.TolerationSeconds != nil {
				stay = fmt.Sprint(*tol.TolerationSeconds)
			}
			got = append(got, fmt.Sprintf("[%s %s]", strings.TrimPrefix(tol.Key, "node.kubernetes.io/"), stay))
		}
		if s := strings.Join(got, " "); s != x.want {
			t.Errorf("%s: %s, want %s", name, s, x.want)
		}
	}
	wantError(t, admit(context.Background(), c, pod(annotated("soon")), nil),
		`Pod "p" is invalid: metadata.annotations[petrel.dev/autonomy]: Invalid value: "soon": must be "forever" or a duration such as "12h" or "30m"`)
}

func TestPriority(t *testing.T) {
	c := newChain(t, newStore(namespace("ns", corev1.NamespaceActive), account("ns", "default")))
	p := pod()
	if err := admit(context.Background(), c, p, nil); err != nil || *p.Spec.Priority != 0 || *p.Spec.PreemptionPolicy != corev1.PreemptLowerPriority {
		t.Errorf("%v, %v, %v", p.Spec.Priority, p.Spec.PreemptionPolicy, err)
	}
	system := pod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "system-node-critical" })
	if err := admit(context.Background(), c, system, nil); err != nil || *system.Spec.Priority != 2000001000 {
		t.Errorf("%v, %v", system.Spec.Priority, err)
	}
	wantError(t, admit(context.Background(), c, pod(func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" }), nil),
		`pods "p" is forbidden: no PriorityClass with name high was found`)
	seven := int32(7)
	wantError(t, admit(context.Background(), c, pod(func(p *corev1.Pod) { p.Spec.Priority = &seven }), nil),
		`pods "p" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name`)
	next := p.DeepCopy()
	next.Spec.Priority = nil
	if err := admit(context.Background(), c, next, p); err != nil || next.Spec.Priority == nil {
		t.Errorf("an update lost the priority: %v", err)
	}
	never := corev1.PreemptNever
	wantError(t, admit(context.Background(), c, pod(func(p *corev1.Pod) { p.Spec.PreemptionPolicy = &never }), nil),
		`pods "p" is forbidden: the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority admission controller computed PreemptLowerPriority from the given PriorityClass name`)
	gvisor := "gvisor"
	wantError(t, admit(context.Background(), c, pod(func(p *corev1.Pod) { p.Spec.RuntimeClassName = &gvisor }), nil),
		`pods "p" is forbidden: pod rejected: RuntimeClass "gvisor" not found`)
}

// TestPriorityClasses checks that stored classes are obeyed: one by its name, the default one by pods that name none.
func TestPriorityClasses(t *testing.T) {
	class := func(name string, value int32, change ...func(*schedulingv1.PriorityClass)) *schedulingv1.PriorityClass {
		c := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}
		for _, f := range change {
			f(c)
		}
		return c
	}
	byDefault := func(c *schedulingv1.PriorityClass) { c.GlobalDefault = true }
	never := func(c *schedulingv1.PriorityClass) { c.PreemptionPolicy = new(corev1.PreemptNever) }
	named := func(name string) *corev1.Pod { return pod(func(p *corev1.Pod) { p.Spec.PriorityClassName = name }) }
	s := newStore(namespace("ns", corev1.NamespaceActive), account("ns", "default"), class("high", 1000), class("patient", 7, never))
	c := newChain(t, s)
	for _, x := range []struct{ name, want string }{{"", " 0 PreemptLowerPriority"}, {"high", "high 1000 PreemptLowerPriority"}, {"patient", "patient 7 Never"}} {
		p := named(x.name)
		if err := admit(t.Context(), c, p, nil); err != nil {
			t.Errorf("%q: %v", x.name, err)
		} else if got := fmt.Sprintf("%s %d %s", p.Spec.PriorityClassName, *p.Spec.Priority, *p.Spec.PreemptionPolicy); got != x.want {
			t.Errorf("a pod of class %q gets %s, want %s", x.name, got, x.want)
		}
	}
	usual := class("usual", 5, byDefault)
	if err := admit(t.Context(), c, usual, nil); err != nil {
		t.Fatal(err)
	}
	s.put(usual)
	p := named("")
	if err := admit(t.Context(), c, p, nil); err != nil || p.Spec.PriorityClassName != "usual" || *p.Spec.Priority != 5 {
		t.Errorf("a pod that names no class gets %s, %v", p.Spec.PriorityClassName, err)
	}
	const second = `priorityclasses.scheduling.k8s.io "high" is forbidden: PriorityClass usual is already marked as default. Only one default can exist`
	wantError(t, admit(t.Context(), c, class("high", 1000, byDefault), nil), second)
	wantError(t, admit(t.Context(), c, class("high", 1000, byDefault), class("high", 1000)), second)
	if err := admit(t.Context(), c, usual, usual); err != nil {
		t.Errorf("an update of the default: %v", err)
	}
}
