package edgeagent

import (
	"path/filepath"

	"petrel.dev/petrel/edgeagent/localvolume"
	"petrel.dev/petrel/edgeagent/volume"
)

// localVolumes returns the store of the built-in provisioner's volumes.
func (a *Agent) localVolumes() *localvolume.Store {
	return &localvolume.Store{Dir: filepath.Join(a.dir, "volumes")}
}

// volumes returns what mounts the pods' volumes.
func (a *Agent) volumes() *volume.Mounter {
	return &volume.Mounter{Dir: a.podsDir(), Local: a.localVolumes(), Images: a.rt.VolumeImages(), Allocatable: a.node.Allocatable()}
}

// newReclaimer returns what removes volumes that the hub wants removed.
func (a *Agent) newReclaimer() *localvolume.Reclaimer {
	pods := &volume.Mounter{Dir: a.podsDir()}
	return localvolume.NewReclaimer(localvolume.Config{Store: a.localVolumes(), Used: pods.UsedBy, Report: a.report, Forget: a.cache.Forget, Log: a.log})
}
