package registry

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/objects"
	"petrel.dev/petrel/hub/registry/patch"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
)

var (
	patchWords = rapid.SampledFrom([]string{`"spec"`, `"containers"`, `"name"`, `"c"`, `"$patch"`, `"delete"`, `"replace"`, `"merge"`,
		`"$setElementOrder/containers"`, `"$retainKeys"`, `"$deleteFromPrimitiveList/finalizers"`, `"metadata"`, `"finalizers"`, `"labels"`, `""`})
	patchPaths = rapid.SampledFrom([]string{"", "/", "/spec", "/spec/containers/0", "/spec/containers/-", "/spec/containers/-1",
		"/spec/containers/7", "/metadata", "/spec/containers/0/name", "/x/y", "x"})
	patchOps = rapid.SampledFrom([]string{"add", "remove", "test", "copy", "move", "replace", "wipe"})
)

// document draws JSON made of words that patches give a meaning to.
func document(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		form := rapid.IntRange(0, 9).Draw(t, "form")
		switch {
		case depth == 0 && form < 6:
			return patchWords.Draw(t, "word")
		case form == 9:
			return rapid.SampledFrom([]string{"null", "1", "true"}).Draw(t, "scalar")
		case depth == 0, form < 3:
			return "[" + strings.Join(rapid.SliceOfN(document(max(depth-1, 0)), 0, 2).Draw(t, "items"), ",") + "]"
		}
		var fields []string
		for range rapid.IntRange(0, 3).Draw(t, "fields") {
			fields = append(fields, patchWords.Draw(t, "key")+":"+document(depth-1).Draw(t, "value"))
		}
		return "{" + strings.Join(fields, ",") + "}"
	})
}

// operations draws a JSON patch.
func operations() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var ops []string
		for range rapid.IntRange(1, 4).Draw(t, "operations") {
			op := `{"op":"` + patchOps.Draw(t, "op") + `","path":"` + patchPaths.Draw(t, "path") + `"`
			if rapid.Bool().Draw(t, "has from") {
				op += `,"from":"` + patchPaths.Draw(t, "from") + `"`
			}
			if rapid.Bool().Draw(t, "has value") {
				op += `,"value":` + document(2).Draw(t, "value")
			}
			ops = append(ops, op+"}")
		}
		return "[" + strings.Join(ops, ",") + "]"
	})
}

// However a patch is put together, it makes an object or is refused with a status.
func TestNonsensePatches(t *testing.T) {
	k, _ := builtin.New().Lookup(kube.Pod)
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	pod.Name, pod.Namespace = "p", "default"
	enc, err := objects.Encode(k, pod)
	if err != nil {
		t.Fatal(err)
	}
	now := enc.With(1)
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType}).Draw(t, "kind")
		from := document(4)
		if kind == types.JSONPatchType {
			from = operations()
		}
		p := patch.Patch{Type: kind, Body: []byte(from.Draw(t, "patch"))}
		if _, err := p.Apply(now, k.New()); err != nil {
			if _, ok := err.(apierrors.APIStatus); !ok {
				t.Fatalf("%T %v", err, err)
			}
		}
	})
}
