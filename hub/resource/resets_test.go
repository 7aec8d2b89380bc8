package resource

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/internal/kube"
)

// What a write resets is upstream's GetResetFields of the kind's strategies.
func TestResets(t *testing.T) {
	withStatus := map[string]*Subresource{"status": {}, "scale": {}}
	custom := Custom{GVK: schema.GroupVersionKind{Group: "example.dev", Version: "v1", Kind: "Boat"}, Plural: "boats", Status: true}.Kind()
	for _, test := range []struct {
		kind *Kind
		sub  string
		want string
	}{
		{&Kind{GVK: kube.ConfigMap}, "", "[]"},
		{&Kind{GVK: kube.Service, Subresources: withStatus}, "", "[[status]]"},
		{&Kind{GVK: kube.Service, Subresources: withStatus}, "status", "[[spec]]"},
		{&Kind{GVK: kube.Deployment, Subresources: withStatus}, "", "[[status]]"},
		{&Kind{GVK: kube.Deployment, Subresources: withStatus}, "status", "[[spec] [metadata labels]]"},
		{&Kind{GVK: kube.Deployment, Subresources: withStatus}, "scale", "[]"},
		{&Kind{GVK: kube.Pod, Subresources: withStatus}, "status", "[[spec] [metadata deletionTimestamp] [metadata ownerReferences]]"},
		{&Kind{GVK: kube.Namespace, Subresources: withStatus}, "finalize", "[[status]]"},
		{&Kind{GVK: schema.GroupVersionKind{Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest"}, Subresources: withStatus}, "", "[[spec] [status]]"},
		{custom, "", "[[status]]"},
		{custom, "status", "[[metadata] [spec]]"},
	} {
		if got := fmt.Sprint(test.kind.Resets(test.sub)); got != test.want {
			t.Errorf("%s/%s resets %s, want %s", test.kind.GVK.Kind, test.sub, got, test.want)
		}
	}
}
