package node

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/resource/bootstrappolicy"
	"petrel.dev/petrel/hub/resource/core"
	"petrel.dev/petrel/internal/kube"
)

// stored are objects that the authorizer reads. late ones show after CatchUp.
type stored struct {
	pods []*corev1.Pod
	objs map[kube.GVK][]kube.Object
	late []*corev1.Pod
}

func (s *stored) Get(gvk kube.GVK, namespace, name string) (kube.Object, bool) {
	if gvk == kube.Pod {
		for _, p := range s.pods {
			if p.Namespace == namespace && p.Name == name {
				return p, true
			}
		}
	}
	for _, o := range s.objs[gvk] {
		if o.GetNamespace() == namespace && o.GetName() == name {
			return o, true
		}
	}
	return nil, false
}

func (s *stored) Index(gvk kube.GVK, index, value string) (out []kube.Object) {
	for _, p := range s.pods {
		if gvk == kube.Pod && index == "node" && p.Spec.NodeName == value {
			out = append(out, p)
		}
	}
	return out
}

func (s *stored) CatchUp(context.Context) error {
	s.pods, s.late = append(s.pods, s.late...), nil
	return nil
}

func pod(name, node string, volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.PodSpec{
		NodeName: node, ServiceAccountName: "sa-" + name, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull-" + name}}, Volumes: volumes,
	}}
}

func meta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }

func authorizer(t *testing.T, o Objects) *Authorizer {
	t.Helper()
	z, err := New(Config{Objects: o, Rules: bootstrappolicy.NodeRules(),
		PodSecrets: core.PodSecrets, PodConfigMaps: core.PodConfigMaps, VolumeSecrets: core.VolumeSecrets})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestNode shows what node pi-1 may reach: its own pod's things, not those of the pod on pi-2, with upstream's reasons.
func TestNode(t *testing.T) {
	here := pod("here", "pi-1",
		corev1.Volume{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "config"}}}},
		corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
		corev1.Volume{Name: "tmp", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{}}}},
	)
	gpu, pi1, pi2 := "gpu", "pi-1", "pi-2"
	here.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &gpu}}
	mirror := pod("mirror", "pi-1")
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	csi := corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", NodePublishSecretRef: &corev1.SecretReference{Namespace: "kube-system", Name: "disk"}}}
	claimed := &corev1.ObjectReference{Namespace: "shop", Name: "data"}
	s := &stored{
		pods: []*corev1.Pod{here, mirror, pod("there", "pi-2"), pod("nowhere", "")},
		objs: map[kube.GVK][]kube.Object{
			kube.PersistentVolumeClaim: {&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "v"}}},
			kube.PersistentVolume: {
				&corev1.PersistentVolume{ObjectMeta: meta("v"), Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: csi, ClaimRef: claimed}},
				&corev1.PersistentVolume{ObjectMeta: meta("free"), Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: csi}},
			},
			kube.VolumeAttachment: {&storagev1.VolumeAttachment{ObjectMeta: meta("a1"), Spec: storagev1.VolumeAttachmentSpec{NodeName: "pi-1"}},
				&storagev1.VolumeAttachment{ObjectMeta: meta("a2"), Spec: storagev1.VolumeAttachmentSpec{NodeName: "pi-2"}}},
			kube.ResourceSlice: {&resourcev1.ResourceSlice{ObjectMeta: meta("s1"), Spec: resourcev1.ResourceSliceSpec{NodeName: &pi1}},
				&resourcev1.ResourceSlice{ObjectMeta: meta("s2"), Spec: resourcev1.ResourceSliceSpec{NodeName: &pi2}}, &resourcev1.ResourceSlice{ObjectMeta: meta("all")}},
		},
	}
	const unrelated = "no relationship found between node 'pi-1' and this object"
	for ask, want := range map[string]string{
		"get /secrets shop/pull-here":                                    "yes",
		"list /secrets shop/pull-here":                                   "yes",
		"watch /secrets shop/pull-here":                                  "yes",
		"get /secrets kube-system/disk":                                  "yes",
		"get /secrets shop/pull-there":                                   unrelated,
		"get /secrets shop/pull-mirror":                                  unrelated,
		"get /secrets bank/pull-here":                                    unrelated,
		"get /secrets /pull-here":                                        "can only read namespaced object of this type",
		"list /secrets shop/":                                            "No Object name found",
		"update /secrets shop/pull-here":                                 "can only read resources of this type",
		"get /configmaps shop/config":                                    "yes",
		"get /configmaps shop/other":                                     unrelated,
		"get /persistentvolumeclaims shop/data":                          "yes",
		"get /persistentvolumeclaims shop/here-tmp":                      "yes",
		"get /persistentvolumeclaims shop/other":                         unrelated,
		"list /persistentvolumeclaims shop/":                             "can only get individual resources of this type",
		"patch /persistentvolumeclaims/status shop/data":                 "yes",
		"get /persistentvolumeclaims/status shop/data":                   "can only get/update/patch this type",
		"get /persistentvolumes /v":                                      "yes",
		"get /persistentvolumes /free":                                   unrelated,
		"get /serviceaccounts shop/sa-here":                              "yes",
		"get /serviceaccounts shop/sa-there":                             unrelated,
		"list /serviceaccounts shop/":                                    "can only create tokens for individual service accounts",
		"create /serviceaccounts/token shop/sa-here":                     "yes",
		"create /serviceaccounts/token shop/sa-there":                    unrelated,
		"create /serviceaccounts/token shop/sa-mirror":                   unrelated,
		"create /serviceaccounts shop/sa-here":                           "can only create token subresource of serviceaccount",
		"get resource.k8s.io/resourceclaims shop/gpu":                    "yes",
		"get resource.k8s.io/resourceclaims shop/other":                  unrelated,
		"get resource.k8s.io/resourceslices /s1":                         "yes",
		"delete resource.k8s.io/resourceslices /s2":                      unrelated,
		"update resource.k8s.io/resourceslices /all":                     unrelated,
		"create resource.k8s.io/resourceslices /":                        "yes",
		"list resource.k8s.io/resourceslices /":                          "can only list/watch/deletecollection resourceslices with nodeName field selector",
		"list resource.k8s.io/resourceslices / spec.nodeName=pi-1":       "yes",
		"list resource.k8s.io/resourceslices / spec.nodeName=pi-2":       "can only list/watch/deletecollection resourceslices with nodeName field selector",
		"get storage.k8s.io/volumeattachments /a1":                       "yes",
		"get storage.k8s.io/volumeattachments /a2":                       unrelated,
		"get storage.k8s.io/csinodes /pi-1":                              "yes",
		"patch storage.k8s.io/csinodes /pi-2":                            "can only access CSINode with the same name as the requesting node",
		"list storage.k8s.io/csinodes /":                                 "can only get, create, update, patch, or delete a CSINode",
		"update coordination.k8s.io/leases kube-node-lease/pi-1":         "yes",
		"update coordination.k8s.io/leases kube-node-lease/pi-2":         "can only access node lease with the same name as the requesting node",
		"update coordination.k8s.io/leases kube-system/pi-1":             `can only access leases in the "kube-node-lease" system namespace`,
		"list coordination.k8s.io/leases kube-node-lease/":               "can only get, create, update, patch, or delete a node lease",
		"get /nodes /pi-1":                                               "yes",
		"get /nodes /pi-2":                                               "node 'pi-1' cannot read 'pi-2', only its own Node object",
		"list /nodes /":                                                  "node 'pi-1' cannot read all nodes, only its own Node object",
		"patch /nodes/status /pi-1":                                      "yes",
		"delete /nodes /pi-1":                                            "",
		"get /nodes/proxy /pi-1":                                         "",
		"get /pods shop/here":                                            "yes",
		"get /pods shop/mirror":                                          "yes",
		"get /pods shop/there":                                           unrelated,
		"get /pods shop/nowhere":                                         unrelated,
		"list /pods /":                                                   "can only list/watch pods with spec.nodeName field selector",
		"watch /pods / spec.nodeName=pi-1":                               "yes",
		"watch /pods / spec.nodeName!=pi-2":                              "can only list/watch pods with spec.nodeName field selector",
		"watch /pods / spec.nodeName=pi-2":                               "can only list/watch pods with spec.nodeName field selector",
		"create /pods shop/":                                             "yes",
		"create /pods/eviction shop/there":                               "yes", // admission looks whose it is
		"create /pods/exec shop/here":                                    "",
		"update /pods shop/here":                                         "",
		"list /services shop/":                                           "yes",
		"get /services shop/a":                                           "yes",
		"delete /services shop/a":                                        "",
		"create /events shop/":                                           "yes",
		"create authentication.k8s.io/tokenreviews /":                    "yes",
		"get rbac.authorization.k8s.io/clusterroles /admin":              "",
		"get certificates.k8s.io/podcertificaterequests shop/x":          "",
		"create certificates.k8s.io/certificatesigningrequests /":        "yes",
		"patch certificates.k8s.io/certificatesigningrequests/status /x": "",
	} {
		f := strings.Fields(ask) // VERB GROUP/PLURAL[/SUBRESOURCE] NAMESPACE/NAME [SELECTOR]
		a := auth.Attributes{Resource: true, Verb: f[0]}
		if len(f) > 3 {
			a.FieldSelector = f[3]
		}
		a.APIGroup, a.Plural, _ = strings.Cut(f[1], "/")
		a.Plural, a.Subresource, _ = strings.Cut(a.Plural, "/")
		a.Namespace, a.Name, _ = strings.Cut(f[2], "/")
		ok, reason, err := authorizer(t, s).Authorize(t.Context(), auth.User{Name: "system:node:pi-1", Groups: []string{"system:nodes"}}, a)
		if ok {
			reason = "yes"
		}
		if err != nil || reason != want {
			t.Errorf("%s: %q %v, want %q", ask, reason, err, want)
		}
	}
}

// TestWhoIsANode checks that only those are who have both the name and the group, and that a pod counts once it is bound.
func TestWhoIsANode(t *testing.T) {
	s := &stored{late: []*corev1.Pod{pod("late", "pi-1")}}
	z := authorizer(t, s)
	ask := auth.Attributes{Resource: true, Verb: "get", Plural: "secrets", Namespace: "shop", Name: "pull-late"}
	for _, test := range []struct {
		name, group string
		allowed     bool
		reason      string
	}{
		{"system:node:pi-1", "system:authenticated", false, ""},
		{"pi-1", "system:nodes", false, ""},
		{"system:node:", "system:nodes", false, `unknown node for user "system:node:"`},
		{"system:node:pi-1", "system:nodes", true, ""},
	} {
		u := auth.User{Name: test.name, Groups: []string{test.group}}
		if ok, reason, err := z.Authorize(t.Context(), u, ask); ok != test.allowed || reason != test.reason || err != nil {
			t.Errorf("%s in %s: %v %q %v", test.name, test.group, ok, reason, err)
		}
	}
	if rules := z.RulesFor(t.Context(), auth.User{Name: "system:node:pi-1", Groups: []string{"system:nodes"}}, "shop"); !rules.Incomplete {
		t.Errorf("a node's rules: %+v", rules)
	}
	if _, err := New(Config{Objects: s}); err == nil {
		t.Error("made without rules")
	}
}
