package builtin

import (
	"context"
	"testing"

	"petrel.dev/petrel/hub/resource/resourcetest"
	"petrel.dev/petrel/internal/kube"
)

// What one pod costs in this package on its way in: decode, default, prepare, validate, encode.
func BenchmarkPodCreate(b *testing.B) {
	pods := byResource(b, "pods", "")
	body := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"ns","labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"env":[{"name":"A","value":"b"}]}]}}`)
	b.ReportAllocs()
	for b.Loop() {
		obj, err := pods.Codec.Decode(body)
		if err != nil {
			b.Fatal(err)
		}
		if errs := resourcetest.Create(pods, obj); len(errs) > 0 {
			b.Fatal(errs)
		}
		if _, _, err := pods.Codec.Encode(obj); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPodTable(b *testing.B) {
	pods := byResource(b, "pods", "")
	obj, err := pods.Codec.Decode([]byte(`{"metadata":{"name":"a","namespace":"ns"},"spec":{"containers":[{"name":"c","image":"i"}]},"status":{"phase":"Running"}}`))
	if err != nil {
		b.Fatal(err)
	}
	objs := make([]kube.Object, 1000)
	for i := range objs {
		objs[i] = obj
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pods.Columns(context.Background(), objs, nil); err != nil {
			b.Fatal(err)
		}
	}
}
