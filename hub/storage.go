package hub

import (
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/ephemeralvolume"
	"petrel.dev/petrel/hub/control/volumebinder"
)

// storageLoops returns the loops that bind claims to volumes, and make claims for pods.
func (h *Hub) storageLoops(as func(controller string) control.Client, events *control.Recorder) []runner {
	return []runner{
		volumebinder.New(volumebinder.Config{Client: as("persistent-volume-binder"), Events: events.As("persistentvolume-controller"), Log: h.part("volumebinder")}),
		ephemeralvolume.New(ephemeralvolume.Config{Client: as("ephemeral-volume-controller"), Events: events.As("ephemeral_volume"), Log: h.part("ephemeralvolume")}),
	}
}
