package hub

import (
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/volumebinder"
)

// storageLoops returns the loops that bind claims to volumes.
func (h *Hub) storageLoops(as func(controller string) control.Client, events *control.Recorder) []runner {
	return []runner{
		volumebinder.New(volumebinder.Config{Client: as("persistent-volume-binder"), Events: events.As("persistentvolume-controller"), Log: h.part("volumebinder")}),
	}
}
