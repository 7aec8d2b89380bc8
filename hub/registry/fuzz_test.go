package registry

import (
	"encoding/base64"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry/patch"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

// A continue token comes back from clients: whatever it says, it must not reach beyond the selection's keys.
func FuzzContinue(f *testing.F) {
	k, _ := builtin.New().Lookup(kube.ConfigMap)
	sel, err := (&Registry{}).selectionOf(resource.Target{Kind: k, Namespace: "default"}, &metav1.ListOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(continueToken(sel, sel.prefix+"a\x00", 7))
	for _, text := range []string{`{"v":"meta.k8s.io/v1","rv":1,"start":"../../secrets/a"}`, `{"v":"meta.k8s.io/v1","rv":-1,"start":"/a"}`, `{"rv":1}`, `[]`, ``} {
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(text)))
	}
	f.Fuzz(func(t *testing.T, token string) {
		after, at, err := decodeContinue(sel, token)
		if err != nil {
			if !apierrors.IsBadRequest(err) {
				t.Fatal(err)
			}
			return
		}
		if !strings.HasPrefix(after, sel.prefix) || at < 0 {
			t.Fatalf("%q goes on after %q at %d", token, after, at)
		}
	})
}

// A patch either makes an object or is refused with a status; it never takes the hub down.
func FuzzPatch(f *testing.F) {
	k, _ := builtin.New().Lookup(kube.Pod)
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	pod.Name, pod.Namespace = "p", "default"
	enc, err := objects.Encode(k, pod)
	if err != nil {
		f.Fatal(err)
	}
	now := enc.With(1)
	for _, body := range []string{
		`{}`, `{"spec":null}`, `[{"op":"add","path":"/spec/containers/-","value":{}}]`, `[{"op":"move","from":"/spec","path":"/metadata"}]`,
		`[{"op":"copy","from":"","path":"/spec/containers/0"}]`, `{"spec":{"containers":[{"name":"c","$patch":"delete"}]}}`,
		`{"$patch":"replace"}`, `{"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"name":"d"}]}}`,
		`{"spec":{"$retainKeys":["containers"],"containers":[]}}`, `{"spec":{"containers":{"a":1}}}`, `[{"op":"test","path":"/a~2"}]`, `null`, `[null]`, `[{"op":"replace","path":""},{"op":"remove","path":"/spec/containers/0"}]`,
	} {
		for kind := range 3 {
			f.Add(kind, body)
		}
	}
	kinds := []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType}
	f.Fuzz(func(t *testing.T, kind int, body string) {
		p := patch.Patch{Type: kinds[uint(kind)%3], Body: []byte(body)}
		out, err := p.Apply(now, k.New())
		if err != nil {
			if _, ok := err.(apierrors.APIStatus); !ok {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if _, ok := out.(*corev1.Pod); !ok {
			t.Fatalf("made %T", out)
		}
	})
}
