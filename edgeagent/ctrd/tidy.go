package ctrd

import (
	"bytes"
	"errors"
	"os"

	"petrel.dev/petrel/edgeagent/ctrd/shim"
)

// Tidy removes what a private containerd and its pods have left after Close with stop: the run directory, unless something is
// mounted in it, and what other agents and containerds share with it, where they have nothing there. Only the agent whose
// directory it is may do so.
func (r *Runtime) Tidy() error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(" "+r.cfg.RunDir+"/")) {
		return err
	}
	return errors.Join(os.RemoveAll(r.cfg.RunDir), r.cgroups.RemoveEmpty(), shim.RemoveEmpty(shim.State, r.cfg.Namespace))
}

// shimSocket returns where the shim of a pod listens: what the pod's containers share is the pod.
func (r *Runtime) shimSocket(podUID string) string {
	return shim.Socket(r.address, r.cfg.Namespace, podUID)
}
