package desired

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/svcproxy"
)

func ptr[T any](v T) *T { return &v }

func TestServiceObject(t *testing.T) {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u", ResourceVersion: "7"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.43.0.5", ClusterIPs: []string{"10.43.0.5"}, Type: corev1.ServiceTypeLoadBalancer,
			Ports: []corev1.ServicePort{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080},
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53},
				{Name: "sctp", Protocol: corev1.ProtocolSCTP, Port: 9},
			},
			SessionAffinity:       corev1.ServiceAffinityClientIP,
			InternalTrafficPolicy: ptr(corev1.ServiceInternalTrafficPolicyLocal),
		},
	}
	slice := func(name string, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Endpoints: eps,
			Ports: []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr(int32(8080))}, {Name: ptr("all")}},
		}
	}
	a := discoveryv1.Endpoint{Addresses: []string{"10.42.0.2"}, NodeName: ptr("n1"), Hostname: ptr("web-0")}
	b := discoveryv1.Endpoint{Addresses: []string{"10.42.1.2"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(true), Terminating: ptr(true)}}
	bad := discoveryv1.Endpoint{Addresses: []string{"no address"}}
	o, err := serviceObject(svc, []*discoveryv1.EndpointSlice{slice("x", b, bad), slice("y", a)})
	if err != nil {
		t.Fatal(err)
	}
	var got svcproxy.Service
	if err := json.Unmarshal(o.Data, &got); err != nil {
		t.Fatal(err)
	}
	ports := map[string]uint16{"http": 8080}
	want := svcproxy.Service{
		Namespace: "ns", Name: "web", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.43.0.5")},
		Ports: []svcproxy.Port{
			{Name: "http", Protocol: svcproxy.TCP, Port: 80, NodePort: 30080}, {Name: "dns", Protocol: svcproxy.UDP, Port: 53},
		},
		Endpoints: []svcproxy.Endpoint{
			{Addr: netip.MustParseAddr("10.42.0.2"), Ports: ports, Hostname: "web-0", Node: "n1", Ready: true, Serving: true},
			{Addr: netip.MustParseAddr("10.42.1.2"), Ports: ports, Serving: true, Terminating: true},
		},
		LoadBalancer: true, AffinitySeconds: 10800, LocalOnlyInternal: true,
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	// Cut otherwise into slices, or with another revision, it is the same to a node.
	svc.ResourceVersion = "8"
	again, err := serviceObject(svc, []*discoveryv1.EndpointSlice{slice("z", a, b)})
	if err != nil || again.Version != o.Version {
		t.Errorf("the same service has another version: %v", err)
	}
	svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "None", []string{"None"}
	o, err = serviceObject(svc, nil)
	if err != nil || strings.Contains(string(o.Data), `"ips"`) {
		t.Errorf("headless: %s, %v", o.Data, err)
	}
}

// A pod's node gets each ConfigMap, Secret and RuntimeClass that the pod names, and each once.
func TestPodRefs(t *testing.T) {
	key := func(cm, sec string) corev1.EnvVar {
		v := corev1.EnvVarSource{}
		if cm != "" {
			v.ConfigMapKeyRef = &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: cm}}
		}
		if sec != "" {
			v.SecretKeyRef = &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: sec}}
		}
		return corev1.EnvVar{ValueFrom: &v}
	}
	name := func(s string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: s} }
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: corev1.PodSpec{
		RuntimeClassName: ptr("plain"),
		ImagePullSecrets: []corev1.LocalObjectReference{name("pull"), name("")},
		Volumes: []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name("a")}}},
			{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "b"}}},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: name("kube-root-ca.crt")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: name("c")}},
			}}}},
			{VolumeSource: corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{SecretRef: ptr(name("target"))}}},
		},
		InitContainers: []corev1.Container{{Env: []corev1.EnvVar{key("d", ""), {Value: "plain"}}}},
		Containers: []corev1.Container{{
			Env:     []corev1.EnvVar{key("", "e"), key("a", "")},
			EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name("f")}}, {SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name("g")}}},
		}},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Env: []corev1.EnvVar{key("h", "")}}}},
	}}
	var got []string
	for _, s := range Table() {
		if s.Refs == nil {
			continue
		}
		for _, r := range s.Refs(p) {
			got = append(got, fmt.Sprint(s.GVK.Kind, "/", r.Namespace, "/", r.Name))
		}
	}
	slices.Sort(got)
	want := "ConfigMap/ns/a ConfigMap/ns/d ConfigMap/ns/f ConfigMap/ns/h ConfigMap/ns/kube-root-ca.crt RuntimeClass//plain " +
		"Secret/ns/b Secret/ns/c Secret/ns/e Secret/ns/g Secret/ns/pull Secret/ns/target"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("refs\n%s, want\n%s", s, want)
	}
}

// What a node gets of a pod does not change when only its status does, except that the hub has given the pod up.
func TestPodObject(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u", ResourceVersion: "1", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}}}}
	version := func() uint64 {
		t.Helper()
		o, err := podObject(p)
		if err != nil {
			t.Fatal(err)
		}
		return o.Version
	}
	v := version()
	p.ResourceVersion, p.ManagedFields = "2", nil
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.42.0.2"}
	if version() != v {
		t.Error("a status change would be sent to the node it came from")
	}
	p.Status.Phase = corev1.PodFailed
	if version() == v {
		t.Error("a pod that the hub has failed looks as before")
	}
}

// What load balancers may do goes to nodes (case 04): who may come in, and that a Service of another class is not for them.
func TestLoadBalancerFields(t *testing.T) {
	get := func(change func(*corev1.Service)) (got svcproxy.Service) {
		t.Helper()
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "lb", CreationTimestamp: metav1.Unix(77, 0)},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.43.0.5", Ports: []corev1.ServicePort{{Port: 80}}}}
		change(svc)
		o, err := serviceObject(svc, nil)
		if err == nil {
			err = json.Unmarshal(o.Data, &got)
		}
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	class := "example.com/other"
	if s := get(func(svc *corev1.Service) { svc.Spec.LoadBalancerClass = &class }); s.LoadBalancer {
		t.Error("a Service of another class is served")
	}
	if s := get(func(*corev1.Service) {}); !s.LoadBalancer || s.Filtered || s.Created != 77 {
		t.Errorf("a plain one: %+v", s)
	}
	for _, f := range []func(*corev1.Service){
		func(svc *corev1.Service) {
			svc.Spec.LoadBalancerSourceRanges = []string{"10.99.0.0/16", " 192.0.2.0/24 "}
		},
		func(svc *corev1.Service) {
			svc.Annotations = map[string]string{corev1.AnnotationLoadBalancerSourceRangesKey: "10.99.0.0/16, 192.0.2.0/24"}
		},
	} {
		if s := get(f); !s.Filtered || fmt.Sprint(s.SourceRanges) != "[10.99.0.0/16 192.0.2.0/24]" {
			t.Errorf("source ranges: %+v", s)
		}
	}
}
