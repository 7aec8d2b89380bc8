package hub

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
)

// A hub that starts serves what was defined before it answers anything: a stored object must not be a 404 because of the hour.
func TestCustomKindsAreServedFromTheStart(t *testing.T) {
	cfg := Config{
		DataDir: t.TempDir(), Listen: "127.0.0.1:0", Domain: "cluster.local", Log: slog.New(slog.DiscardHandler),
		ClusterCIDR: netip.MustParsePrefix("10.162.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.163.0.0/16"),
	}
	gvk := kube.GVK{Group: "example.dev", Version: "v1", Kind: "Thing"}
	start := func() (h *Hub, stop func()) {
		t.Helper()
		h, err := New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		return h, func() {
			t.Helper()
			go func() { done <- h.Run(ctx) }() // at the latest now, because it closes what New has opened
			time.AfterFunc(100*time.Millisecond, cancel)
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	h, _ := start()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	create := func(gvk kube.GVK, manifest string) {
		t.Helper()
		k, ok := h.kinds.Lookup(gvk)
		if !ok {
			t.Fatalf("%s is not served", gvk)
		}
		text, err := yaml.YAMLToJSON([]byte(manifest))
		if err != nil {
			t.Fatal(err)
		}
		obj, _, err := k.DecodeStrict(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.registry.Create(ctx, resource.Target{Kind: k, Namespace: obj.GetNamespace()}, obj, nil); err != nil {
			t.Fatal(err)
		}
	}
	changes := h.kinds.Changes(ctx)
	create(kube.CustomResourceDefinition, `{metadata: {name: things.example.dev}, spec: {group: example.dev, scope: Cluster, names: {plural: things, kind: Thing},
		versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {color: {type: string, default: red}}}}}]}}`)
	for range changes {
		if _, ok := h.kinds.Lookup(gvk); ok {
			break
		}
	}
	create(gvk, `{metadata: {name: a}}`)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	again, stop := start()
	defer stop()
	k, ok := again.kinds.Lookup(gvk)
	if !ok {
		t.Fatal("not served by a hub that was just started")
	}
	res, err := again.registry.Get(t.Context(), resource.Target{Kind: k, Name: "a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := res.Object.(*unstructured.Unstructured); !ok || u.Object["color"] != "red" {
		t.Errorf("got %s", res.JSON)
	}
}
