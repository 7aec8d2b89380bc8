package openapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
	generated "k8s.io/kubernetes/pkg/generated/openapi"
)

var renew = flag.Bool("update", false, "renew definitions.zst from upstream's generated code, and tags.txt from the documents")

// TestDefinitions checks that what is embedded is what upstream generates, and comes out of it with the same references.
func TestDefinitions(t *testing.T) {
	text, err := packDefinitions(generated.GetOpenAPIDefinitions)
	if err != nil {
		t.Fatal(err)
	}
	if *renew {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		packedDefinitions = w.EncodeAll(text, nil)
		if err := os.WriteFile("definitions.zst", packedDefinitions, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	kept, err := r.DecodeAll(packedDefinitions, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, text) {
		t.Fatal("definitions.zst is not what this version of Kubernetes generates; renew it with: go test ./hub/resource/openapi -run TestDefinitions -update")
	}

	ref := func(name string) spec.Ref {
		return spec.MustCreateRef("#/components/schemas/" + common.EscapeJsonPointer(name))
	}
	want := generated.GetOpenAPIDefinitions(ref)
	defs, err := unpackDefinitions()
	if err != nil {
		t.Fatal(err)
	}
	got, err := defs.closure(ref, slices.Collect(maps.Keys(want))...)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d definitions, not %d", len(got), len(want))
	}
	for name, w := range want {
		g, err := json.Marshal(got[name])
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(g, text) {
			t.Errorf("%s is\n%s\nnot\n%s", name, g, text)
		}
		if !equality.Semantic.DeepEqual(got[name].Dependencies, w.Dependencies) {
			t.Errorf("%s depends on %v, not %v", name, got[name].Dependencies, w.Dependencies)
		}
	}
}
