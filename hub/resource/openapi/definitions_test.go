package openapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
	generated "k8s.io/kubernetes/pkg/generated/openapi"
)

var renew = flag.Bool("update", false, "renew definitions.json.zst from upstream's generated code")

// TestDefinitions checks that what is embedded is what upstream generates, and comes out of it with the same references.
func TestDefinitions(t *testing.T) {
	text, err := encodeDefinitions(generated.GetOpenAPIDefinitions)
	if err != nil {
		t.Fatal(err)
	}
	if *renew {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		definitions = w.EncodeAll(text, nil)
		if err := os.WriteFile("definitions.json.zst", definitions, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	kept, err := r.DecodeAll(definitions, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, text) {
		t.Fatal("definitions.json.zst is not what this version of Kubernetes generates; renew it with: go test ./hub/resource/openapi -run TestDefinitions -update")
	}

	ref := func(name string) spec.Ref {
		return spec.MustCreateRef("#/components/schemas/" + common.EscapeJsonPointer(name))
	}
	got, want := allDefinitions(ref), generated.GetOpenAPIDefinitions(ref)
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
