package hub

import (
	"context"
	"fmt"

	"petrel.dev/petrel/hub/crd"
	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/lean"
)

// openCustomKinds serves what CustomResourceDefinitions define, before any request is answered. It comes after the registry.
func (h *Hub) openCustomKinds() {
	h.crd = crd.New(crd.Config{
		Client:   h.registry.Client(),
		Kinds:    h.kinds,
		Read:     h.readDefinition,
		Meta:     h.types,
		Webhooks: h.webhooks,
		Rest:     func() { lean.GiveBack(h.log) },
		Log:      h.part("crd"),
	})
	h.crd.Load()
}

// readDefinition returns a definition as it is stored. The typed cache has definitions without their schemas.
func (h *Hub) readDefinition(ctx context.Context, name string) (kube.Object, error) {
	k, ok := h.kinds.Lookup(kube.CustomResourceDefinition)
	if !ok {
		return nil, fmt.Errorf("%s is not served", kube.CustomResourceDefinition)
	}
	res, err := h.registry.Get(ctx, resource.Target{Kind: k, Name: name}, nil)
	if err != nil {
		return nil, err
	}
	return k.Codec.Decode(res.JSON)
}
