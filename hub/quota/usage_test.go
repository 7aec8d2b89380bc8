package quota

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/internal/kube"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func pod(name string, requests, limits corev1.ResourceList, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

// What one object takes of each resource that a quota may limit, by upstream's rules.
func TestUsage(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	going := func(late time.Duration) func(*corev1.Pod) {
		grace, at := int64(30), metav1.NewTime(now.Add(-30*time.Second-late))
		return func(p *corev1.Pod) { p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace }
	}
	service := func(kind corev1.ServiceType, allocate *bool, ports ...int32) *corev1.Service {
		s := &corev1.Service{Spec: corev1.ServiceSpec{Type: kind, AllocateLoadBalancerNodePorts: allocate}}
		for _, p := range ports {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{NodePort: p})
		}
		return s
	}
	class, no := "fast", false
	claim := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class,
		Resources: corev1.VolumeResourceRequirements{Requests: list("storage", "1G")}}}
	grown := claim.DeepCopy()
	grown.Status.AllocatedResources = list("storage", "2G")
	for _, test := range []struct {
		of   string
		obj  kube.Object
		want string
	}{
		{"pods", pod("p", list("cpu", "100m", "memory", "1Gi", "hugepages-2Mi", "4Mi", "example.com/gpu", "2"), list("cpu", "1", "ephemeral-storage", "1Gi")),
			"count/pods=1,cpu=100m,hugepages-2Mi=4Mi,limits.cpu=1,limits.ephemeral-storage=1Gi,memory=1Gi,pods=1," +
				"requests.cpu=100m,requests.example.com/gpu=2,requests.hugepages-2Mi=4Mi,requests.memory=1Gi"},
		{"pods", pod("p", nil, nil, func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("cpu", "2")}}}
			p.Spec.Overhead = list("cpu", "500m")
		}), "count/pods=1,cpu=2500m,pods=1,requests.cpu=2500m"},
		{"pods", pod("p", list("cpu", "1"), nil, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), "count/pods=1"},
		{"pods", pod("p", list("cpu", "1"), nil, going(0)), "count/pods=1,cpu=1,pods=1,requests.cpu=1"},
		{"pods", pod("p", list("cpu", "1"), nil, going(time.Minute)), "count/pods=1"},
		{"services", service(corev1.ServiceTypeClusterIP, nil, 0, 0), "count/services=1,services=1"},
		{"services", service(corev1.ServiceTypeNodePort, nil, 0, 0), "count/services=1,services=1,services.nodeports=2"},
		{"services", service(corev1.ServiceTypeLoadBalancer, nil, 0, 0), "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"},
		{"services", service(corev1.ServiceTypeLoadBalancer, &no, 0, 30080), "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1"},
		{"persistentvolumeclaims", claim, "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1," +
			"fast.storageclass.storage.k8s.io/requests.storage=1G,persistentvolumeclaims=1,requests.storage=1G"},
		{"persistentvolumeclaims", grown, "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1," +
			"fast.storageclass.storage.k8s.io/requests.storage=2G,persistentvolumeclaims=1,requests.storage=2G"},
		{"secrets", &corev1.Secret{}, "count/secrets=1,secrets=1"},
		{"widgets.example.com", &corev1.ConfigMap{}, "count/widgets.example.com=1"},
	} {
		c := counterOf(schema.ParseGroupResource(test.of))
		got := c.usage(test.obj, now)
		if s := Text(got); s != test.want {
			t.Errorf("%s: %s\nwant %s", test.of, s, test.want)
		}
		for name := range got {
			if !c.limits(name) {
				t.Errorf("%s takes %s, which no quota can limit", test.of, name)
			}
		}
	}
}

// Which kinds a quota is about follows from the names that it limits.
func TestCounted(t *testing.T) {
	for name, want := range map[corev1.ResourceName]string{
		"pods": "pods", "requests.cpu": "pods", "requests.example.com/gpu": "pods", "hugepages-1Gi": "pods", "requests.kubernetes.io/x": "",
		"services.nodeports": "services", "requests.storage": "persistentvolumeclaims", "fast.storageclass.storage.k8s.io/requests.storage": "persistentvolumeclaims",
		"secrets": "secrets", "count/secrets": "secrets", "count/widgets.example.com": "widgets.example.com", "count/deployments.apps": "deployments.apps",
		"widgets": "", "count/pods": "pods",
	} {
		var got []string
		for gr := range counted(corev1.ResourceList{name: one()}) {
			got = append(got, gr.String())
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s is about %q, want %q", name, s, want)
		}
	}
}

func TestScopes(t *testing.T) {
	seconds := int64(5)
	ends := pod("ends", list("cpu", "1"), nil, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &seconds })
	best := pod("best", nil, nil)
	high := pod("high", list("cpu", "1"), nil, func(p *corev1.Pod) { p.Spec.PriorityClassName = "high" })
	across := pod("across", list("cpu", "1"), nil, func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
			{PodAffinityTerm: corev1.PodAffinityTerm{NamespaceSelector: &metav1.LabelSelector{}}}}}}
	})
	gold := "gold"
	claims := []kube.Object{
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "plain"}},
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeAttributesClassName: &gold}},
	}
	exists := func(name corev1.ResourceQuotaScope) corev1.ScopedResourceSelectorRequirement {
		return corev1.ScopedResourceSelectorRequirement{ScopeName: name, Operator: corev1.ScopeSelectorOpExists}
	}
	value := func(name corev1.ResourceQuotaScope, op corev1.ScopeSelectorOperator, values ...string) corev1.ScopedResourceSelectorRequirement {
		return corev1.ScopedResourceSelectorRequirement{ScopeName: name, Operator: op, Values: values}
	}
	for _, test := range []struct {
		scope corev1.ScopedResourceSelectorRequirement
		want  string
	}{
		{exists("Terminating"), "ends"}, {exists("NotTerminating"), "across best high"},
		{exists("BestEffort"), "best"}, {exists("NotBestEffort"), "across ends high"},
		{exists("PriorityClass"), "high"}, {value("PriorityClass", "In", "high", "low"), "high"},
		{value("PriorityClass", "NotIn", "high"), "across best ends"}, {value("PriorityClass", "DoesNotExist"), "across best ends"},
		{exists("CrossNamespacePodAffinity"), "across"},
		{exists("VolumeAttributesClass"), "gold"}, {value("VolumeAttributesClass", "In", "gold"), "gold"}, {value("VolumeAttributesClass", "NotIn", "gold"), "plain"},
		{value("PriorityClass", "Near", "high"), ""},
	} {
		var got []string
		for of, objs := range map[string][]kube.Object{"pods": {ends, best, high, across}, "persistentvolumeclaims": claims, "services": {&corev1.Service{}}} {
			for _, obj := range objs {
				if counterOf(corev1.Resource(of)).covers([]corev1.ScopedResourceSelectorRequirement{test.scope}, obj) {
					got = append(got, obj.GetName())
				}
			}
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%v: %q, want %q", test.scope, s, test.want)
		}
	}
}

// Containers must give what a quota limits of them.
func TestMissing(t *testing.T) {
	p := pod("p", list("cpu", "1"), nil, func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "b"})
		p.Spec.InitContainers = []corev1.Container{{Name: "a", Resources: corev1.ResourceRequirements{Limits: list("cpu", "1")}}}
	})
	err := missing(list("limits.cpu", "1", "requests.cpu", "1", "pods", "1", "ephemeral-storage", "1"), p)
	if got, want := fmt.Sprint(err), "must specify limits.cpu for: b,c; requests.cpu for: a,b"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("cpu", "3")}
	if err := missing(list("limits.cpu", "1"), p); err != nil {
		t.Errorf("a pod with resources of its own: %v", err)
	}
}
