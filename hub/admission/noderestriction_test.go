package admission_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/admission/noderestriction"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

// signing returns a certificate request in PEM for a common name.
func signing(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// TestNodeRestriction shows what node pi-1 may write into the objects that it reaches, and upstream's texts for what it may not.
func TestNodeRestriction(t *testing.T) {
	yes := true
	named := func(name string, labels ...string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{}}
		for _, l := range labels {
			m.Labels[l] = "x"
		}
		return m
	}
	node := func(change ...func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: named("pi-1", "kubernetes.io/hostname", "acme.com/rack")}
		n.Namespace = ""
		for _, c := range change {
			c(n)
		}
		return n
	}
	label := func(key string) func(*corev1.Node) { return func(n *corev1.Node) { n.Labels[key] = "y" } }
	pod := func(name, on string, change ...func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: named(name), Spec: corev1.PodSpec{NodeName: on, Volumes: []corev1.Volume{{
			Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t", Audience: "vault"}}}}}}}}}
		for _, c := range change {
			c(p)
		}
		return p
	}
	mirror := func(change ...func(*corev1.Pod)) *corev1.Pod {
		p := pod("mirror", "pi-1")
		p.Spec.Volumes = nil
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "pi-1", UID: "uid-pi-1", Controller: &yes}}
		for _, c := range change {
			c(p)
		}
		return p
	}
	lease := func(name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-node-lease", Name: name}}
	}
	token := func(pod, uid string, audiences ...string) *authenticationv1.TokenRequest {
		r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
		if pod != "" {
			r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod, UID: types.UID(uid)}
		}
		return r
	}
	slice := func(on string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: resourcev1.ResourceSliceSpec{NodeName: &on}}
	}
	csr := func(signer, name string) *certificatesv1.CertificateSigningRequest {
		return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "c"},
			Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Request: signing(t, name)}}
	}
	claim := func(change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: named("data")}
		for _, ch := range change {
			ch(c)
		}
		return c
	}
	csi := pod("disk", "pi-1")
	csi.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}}}
	stored := controltest.New(t, node(), pod("mine", "pi-1"), pod("other", "pi-2"), csi,
		&corev1.PersistentVolumeClaim{ObjectMeta: named("disk"), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "v"}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d"}}}},
		&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storagev1.CSIDriverSpec{TokenRequests: []storagev1.TokenRequest{{Audience: "disks"}}}},
	)
	restriction := noderestriction.New(stored, nil)
	const create, update, del = registry.OpCreate, registry.OpUpdate, registry.OpDelete
	kinds := builtin.New()
	for _, test := range []struct {
		name string
		gvk  kube.GVK
		a    registry.AdmissionRequest
		want string // end of the refusal; "": none
	}{
		{"its Node", kube.Node, registry.AdmissionRequest{Operation: create, Object: node()}, ""},
		{"another Node", kube.Node, registry.AdmissionRequest{Operation: create, Object: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "pi-2"}}}, `node "pi-1" is not allowed to modify node "pi-2"`},
		{"its Node, with a trusted label", kube.Node, registry.AdmissionRequest{Operation: create, Object: node(label("node-restriction.kubernetes.io/safe"), label("x.k8s.io/y"))},
			`node "pi-1" is not allowed to set the following labels: node-restriction.kubernetes.io/safe, x.k8s.io/y`},
		{"a label of its own", kube.Node, registry.AdmissionRequest{Operation: update, Object: node(label("acme.com/x"), label("node.kubernetes.io/x"), label("topology.kubernetes.io/zone")), Old: node()}, ""},
		{"a role", kube.Node, registry.AdmissionRequest{Operation: update, Object: node(label("node-role.kubernetes.io/control-plane")), Old: node()}, `is not allowed to modify labels: node-role.kubernetes.io/control-plane`},
		{"taints", kube.Node, registry.AdmissionRequest{Operation: update, Object: node(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k"}} }), Old: node()}, `node "pi-1" is not allowed to modify taints`},
		{"owners", kube.Node, registry.AdmissionRequest{Operation: update, Object: node(func(n *corev1.Node) { n.OwnerReferences = []metav1.OwnerReference{{}} }), Old: node()}, `node "pi-1" is not allowed to modify ownerReferences`},

		{"a pod", kube.Pod, registry.AdmissionRequest{Operation: create, Object: pod("p", "pi-1")}, `pod does not have "kubernetes.io/config.mirror" annotation, node "pi-1" can only create mirror pods`},
		{"a mirror pod", kube.Pod, registry.AdmissionRequest{Operation: create, Object: mirror()}, ""},
		{"a mirror pod elsewhere", kube.Pod, registry.AdmissionRequest{Operation: create, Object: mirror(func(p *corev1.Pod) { p.Spec.NodeName = "pi-2" })}, `node "pi-1" can only create pods with spec.nodeName set to itself`},
		{"a mirror pod of nobody", kube.Pod, registry.AdmissionRequest{Operation: create, Object: mirror(func(p *corev1.Pod) { p.OwnerReferences = nil })}, `node "pi-1" can only create pods with an owner reference set to itself`},
		{"a mirror pod of another", kube.Pod, registry.AdmissionRequest{Operation: create, Object: mirror(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "x" })}, `node pi-1 UID mismatch: expected x got uid-pi-1`},
		{"a mirror pod that reads a secret", kube.Pod, registry.AdmissionRequest{Operation: create, Object: mirror(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "x"}}}}
		})}, `node "pi-1" can not create pods that reference secrets`},
		{"a mirror pod with an account", kube.Pod, registry.AdmissionRequest{Operation: create, Object: mirror(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "x" })}, `node "pi-1" can not create pods that reference serviceaccounts`},
		{"a spec", kube.Pod, registry.AdmissionRequest{Operation: update, Object: pod("mine", "pi-1"), Old: pod("mine", "pi-1")}, `unexpected operation "UPDATE", node "pi-1" can only create and delete mirror pods`},
		{"end its pod", kube.Pod, registry.AdmissionRequest{Operation: del, Old: pod("mine", "pi-1")}, ""},
		{"end another's pod", kube.Pod, registry.AdmissionRequest{Operation: del, Old: pod("other", "pi-2")}, `node "pi-1" can only delete pods with spec.nodeName set to itself`},
		{"a status", kube.Pod, registry.AdmissionRequest{Request: sub("status", ""), Operation: update, Object: pod("mine", "pi-1"), Old: pod("mine", "pi-1")}, ""},
		{"another's status", kube.Pod, registry.AdmissionRequest{Request: sub("status", ""), Operation: update, Object: pod("other", "pi-2"), Old: pod("other", "pi-2")}, `node "pi-1" can only update pod status for pods with spec.nodeName set to itself`},
		{"labels by status", kube.Pod, registry.AdmissionRequest{Request: sub("status", ""), Operation: update, Object: pod("mine", "pi-1", func(p *corev1.Pod) { p.Labels["a"] = "b" }), Old: pod("mine", "pi-1")}, `node "pi-1" cannot update labels through pod status`},
		{"an eviction", kube.Pod, registry.AdmissionRequest{Request: sub("eviction", "mine"), Operation: create, Body: &policyv1.Eviction{}}, ""},
		{"another's eviction", kube.Pod, registry.AdmissionRequest{Request: sub("eviction", "other"), Operation: create, Body: &policyv1.Eviction{}}, `node pi-1 can only evict pods with spec.nodeName set to itself`},
		{"a binding", kube.Pod, registry.AdmissionRequest{Request: sub("binding", "mine"), Operation: create, Body: &corev1.Binding{}}, `unexpected pod subresource "binding", only 'status' and 'eviction' are allowed`},

		{"a claim", kube.PersistentVolumeClaim, registry.AdmissionRequest{Operation: update, Object: claim(), Old: claim()}, `may only update PVC status`},
		{"a claim's size", kube.PersistentVolumeClaim, registry.AdmissionRequest{Request: sub("status", "data"), Operation: update,
			Object: claim(func(c *corev1.PersistentVolumeClaim) {
				c.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: "Resizing"}}
			}), Old: claim()}, ""},
		{"a claim's phase", kube.PersistentVolumeClaim, registry.AdmissionRequest{Request: sub("status", "data"), Operation: update,
			Object: claim(func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimBound }), Old: claim()}, `node "pi-1" is not allowed to update fields other than status.quantity and status.conditions`},

		{"a token of nobody", kube.ServiceAccount, registry.AdmissionRequest{Request: sub("token", "sa"), Operation: create, Body: token("", "")}, `node requested token not bound to a pod`},
		{"a token without a UID", kube.ServiceAccount, registry.AdmissionRequest{Request: sub("token", "sa"), Operation: create, Body: token("mine", "", "vault")}, `node requested token with a pod binding without a uid`},
		{"a token", kube.ServiceAccount, registry.AdmissionRequest{Request: sub("token", "sa"), Operation: create, Body: token("mine", "uid-mine", "vault")}, ""},
		{"a token for another's pod", kube.ServiceAccount, registry.AdmissionRequest{Request: sub("token", "sa"), Operation: create, Body: token("other", "uid-other", "vault")}, `node requested token bound to a pod scheduled on a different node`},
		{"a token for a pod that was", kube.ServiceAccount, registry.AdmissionRequest{Request: sub("token", "sa"), Operation: create, Body: token("mine", "x", "vault")},
			`the UID in the bound object reference (x) does not match the UID in record. The object might have been deleted and then recreated`},
		{"a token for another audience", kube.ServiceAccount, registry.AdmissionRequest{Request: sub("token", "sa"), Operation: create, Body: token("mine", "uid-mine", "bank")},
			`audience "bank" not found in pod spec volume, system:node:pi-1 is not authorized to request tokens for this audience`},
		{"a token for a driver", kube.ServiceAccount, registry.AdmissionRequest{Request: sub("token", "sa"), Operation: create, Body: token("disk", "uid-disk", "disks")}, ""},

		{"its Lease", kube.Lease, registry.AdmissionRequest{Operation: create, Object: lease("pi-1")}, ""},
		{"another's Lease", kube.Lease, registry.AdmissionRequest{Operation: create, Object: lease("pi-2")}, `can only access node lease with the same name as the requesting node`},
		{"its slice", kube.ResourceSlice, registry.AdmissionRequest{Operation: create, Object: slice("pi-1")}, ""},
		{"another's slice", kube.ResourceSlice, registry.AdmissionRequest{Operation: create, Object: slice("pi-2")}, `can only create ResourceSlice with the same NodeName as the requesting node`},
		{"end another's slice", kube.ResourceSlice, registry.AdmissionRequest{Operation: del, Old: slice("pi-2")}, `can only delete ResourceSlice with the same NodeName as the requesting node`},
		{"its certificate", certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"), registry.AdmissionRequest{Operation: create, Object: csr("kubernetes.io/kube-apiserver-client-kubelet", "system:node:pi-1")}, ""},
		{"another's certificate", certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"), registry.AdmissionRequest{Operation: create, Object: csr("kubernetes.io/kubelet-serving", "system:node:pi-2")}, `can only create a node CSR with CN=system:node:pi-1`},
		{"a certificate of another signer", certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"), registry.AdmissionRequest{Operation: create, Object: csr("acme.com/x", "x")}, ""},
		{"an event", kube.Event, registry.AdmissionRequest{Operation: create, Object: &corev1.Event{}}, ""},
	} {
		k, ok := kinds.Lookup(test.gvk)
		if !ok {
			t.Fatalf("%s is not declared", test.gvk)
		}
		a := test.a
		a.Kind, a.Namespace = k, "shop"
		if a.Object != nil && a.Operation == update {
			a.Name = a.Object.GetName()
		}
		if a.Object != nil && test.gvk == kube.Lease {
			a.Namespace = a.Object.GetNamespace()
		}
		for _, u := range []auth.User{
			{Name: "system:node:pi-1", Groups: []string{"system:nodes"}}, {Name: "system:node:", Groups: []string{"system:nodes"}}, {Name: "system:node:pi-1"},
		} {
			a.User = u
			want := test.want
			switch {
			case len(u.Groups) == 0:
				want = ""
			case u.Name == "system:node:":
				want = `could not determine node from user "system:node:"`
			}
			if got := message(restriction.Admit(t.Context(), &a)); (got == "") != (want == "") || !strings.HasSuffix(got, want) {
				t.Errorf("%s of %q: %s\nwant %s", test.name, u.Name, got, want)
			}
		}
	}
}

// sub is a request about a subresource.
func sub(name, of string) resource.Request {
	return resource.Request{Target: resource.Target{Subresource: name, Name: of}}
}
