package schedule

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/volumebinder"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
	"petrel.dev/petrel/sched"
)

// volumeKinds are the kinds that placement depends on for pods with claims.
var volumeKinds = []kube.GVK{kube.PersistentVolumeClaim, kube.PersistentVolume, kube.StorageClass}

// volume applies a change of a claim, a volume or a class.
func (s *Scheduler) volume(c control.Change) {
	switch o := c.Object().(type) {
	case *corev1.PersistentVolumeClaim:
		if c.New == nil {
			s.snap.RemoveClaim(o.Namespace, o.Name)
		} else {
			s.snap.SetClaim(o)
		}
		key := o.Namespace + "/" + o.Name
		if givenBack(c) {
			s.queue.release(key, func(e *entry) { s.nominate(e, "") })
		}
		if s.queue.any(func(claims []string) bool { return slices.Contains(claims, key) }) {
			s.changes.add(sched.Volumes, "")
		}
		return
	case *corev1.PersistentVolume:
		if c.New == nil {
			s.snap.RemoveVolume(o.Name)
		} else {
			s.snap.SetVolume(o)
		}
	case *storagev1.StorageClass:
		if c.New == nil {
			s.snap.RemoveStorageClass(o.Name)
		} else {
			s.snap.SetStorageClass(o)
		}
	}
	s.changes.add(sched.Volumes, "")
}

// givenBack reports whether an external provisioner has given a claim back: it cannot make a volume on the node that was selected.
func givenBack(c control.Change) bool {
	old, _ := c.Old.(*corev1.PersistentVolumeClaim)
	now, _ := c.New.(*corev1.PersistentVolumeClaim)
	return old != nil && now != nil && old.Annotations[kube.SelectedNode] != "" && now.Annotations[kube.SelectedNode] == "" && now.Spec.VolumeName == ""
}

// release calls f for each pod with a claim to which a node is promised.
func (q *queue) release(claim string, f func(e *entry)) {
	for _, e := range q.entries {
		if e.nominated != "" && slices.Contains(e.prepared.Claims(), claim) {
			f(e)
		}
	}
}

// any reports whether a pod with such claims waits.
func (q *queue) any(want func(claims []string) bool) bool {
	for _, e := range q.entries {
		if want(e.prepared.Claims()) {
			return true
		}
	}
	return false
}

// bindVolumes plans the volumes that a pod's claims get together with its binding. It returns "" when nothing else has to happen
// before; otherwise what the pod waits for: a volume that an external provisioner makes. Then the writes of the outcome give that
// provisioner the node.
func (s *Scheduler) bindVolumes(o *outcome) (waits string) {
	for _, p := range o.decision.Claims {
		switch {
		case p.Volume != nil:
			o.bindings = append(o.bindings, volumebinder.Bind(p.Volume, p.Claim))
		case p.Class.Provisioner == localpath.Provisioner:
			o.bindings = append(o.bindings, volumebinder.Provision(p.Claim, p.Class, p.Node))
		default:
			waits = fmt.Sprintf("waiting for the provisioner %s to make the volume of persistentvolumeclaim %q on node %s", p.Class.Provisioner, p.Claim.Name, p.Node.Name)
			if p.Claim.Annotations[kube.SelectedNode] != p.Node.Name {
				o.writes = append(o.writes, control.Write{Object: volumebinder.SelectNode(p.Claim, p.Node.Name), Old: p.Claim})
			}
		}
	}
	if waits != "" {
		o.bindings = nil // they come with the pod's binding
		return waits
	}
	for _, b := range o.bindings {
		o.writes = append(o.writes, b.Writes()...)
		s.snap.SetClaim(b.Claim)
		s.snap.SetVolume(b.Volume)
	}
	return ""
}

// unbindVolumes undoes in the snapshot what bindVolumes did: it has again what the feed has delivered.
func (s *Scheduler) unbindVolumes(o *outcome) {
	for _, b := range o.bindings {
		if c, ok := control.Get[*corev1.PersistentVolumeClaim](s.cfg.Client, kube.PersistentVolumeClaim, b.Claim.Namespace, b.Claim.Name); ok {
			s.snap.SetClaim(c)
		} else {
			s.snap.RemoveClaim(b.Claim.Namespace, b.Claim.Name)
		}
		if v, ok := control.Get[*corev1.PersistentVolume](s.cfg.Client, kube.PersistentVolume, "", b.Volume.Name); ok {
			s.snap.SetVolume(v)
		} else {
			s.snap.RemoveVolume(b.Volume.Name)
		}
	}
}

// provisioned reports the volumes that were made with a pod's binding.
func (s *Scheduler) provisioned(o *outcome) {
	for i, b := range o.bindings {
		if o.decision.Claims[i].Volume == nil {
			s.cfg.Events.Event(b.Claim, corev1.EventTypeNormal, volumebinder.ReasonProvisioned, "Successfully provisioned volume %s", b.Volume.Name)
		}
	}
}

// promised are the claims that pods of a round get volumes for. Another pod with one of them waits for the next round: if the first
// one cannot be bound, it must not be bound to a node that the volume is then not on.
type promised map[string]bool

func (p promised) has(pod *sched.Pod) bool {
	return slices.ContainsFunc(pod.Claims(), func(key string) bool { return p[key] })
}

func (p promised) add(o *outcome) {
	for _, b := range o.bindings {
		p[b.Claim.Namespace+"/"+b.Claim.Name] = true
	}
}
