package hub

import (
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/imageplacement"
)

// imagePlacement returns the controller that moves pods away from nodes which their image does not exist for.
// Kubernetes has no role for it: that of the node controller may do the same, mark pods and delete them.
func (h *Hub) imagePlacement(events *control.Recorder) runner {
	return imageplacement.New(imageplacement.Config{
		Client: h.registry.ClientAs(auth.Controller("node-controller")), Events: events.As("image-placement-controller"), Images: h.dispatch, Log: h.part("imageplacement"),
	})
}
