package volumebinder

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	storage "k8s.io/component-helpers/storage/volume"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// Reasons of events, as Kubernetes' controllers have them.
const (
	reasonFailedBinding   = "FailedBinding"
	reasonMismatch        = "VolumeMismatch"
	reasonFailedRecycle   = "VolumeFailedRecycle"
	reasonFailedDelete    = "VolumeFailedDelete"
	reasonDelete          = "VolumeDelete"
	reasonExternal        = "ExternalProvisioning"
	reasonProvisionFailed = "ProvisioningFailed"
	// ReasonProvisioned is of the event that a claim has got a new volume.
	ReasonProvisioned  = "ProvisioningSucceeded"
	reasonWaitConsumer = "WaitForFirstConsumer"
	reasonWaitPod      = "WaitForPodScheduled"
)

// actions are what is to be done about one claim or volume: writes in one commit, then events.
type actions struct {
	writes []control.Write
	delete *corev1.PersistentVolume // is to be deleted by the rules of the API; nil: none
	events []event
}

type event struct {
	of                kube.Object
	kind, reason, why string
}

func (a *actions) say(of kube.Object, kind, reason, format string, args ...any) {
	a.events = append(a.events, event{of, kind, reason, fmt.Sprintf(format, args...)})
}

// world is what decisions depend on: the cache, which does not change meanwhile.
type world struct{ control.Reader }

func (w world) volume(name string) *corev1.PersistentVolume {
	v, _ := control.Get[*corev1.PersistentVolume](w, kube.PersistentVolume, "", name)
	return v
}

func (w world) class(name string) *storagev1.StorageClass {
	c, _ := control.Get[*storagev1.StorageClass](w, kube.StorageClass, "", name)
	return c
}

// claim decides about a claim.
func (w world) claim(c *corev1.PersistentVolumeClaim) (a actions) {
	_, completed := c.Annotations[kube.BindCompleted]
	switch {
	case completed:
		w.boundClaim(c, &a)
	case c.DeletionTimestamp != nil: // what it waits for would come too late
	case c.Spec.VolumeName != "":
		w.namedVolume(c, &a)
	default:
		w.anyVolume(c, &a)
	}
	return a
}

// boundClaim keeps the statuses of a claim that is bound and of its volume. A claim whose volume is gone is lost for good.
func (w world) boundClaim(c *corev1.PersistentVolumeClaim, a *actions) {
	lost := func(reason, why string) {
		if c.Status.Phase != corev1.ClaimLost {
			a.say(c, corev1.EventTypeWarning, reason, "%s", why)
		}
		a.setClaim(c, corev1.ClaimLost, nil)
	}
	if c.Spec.VolumeName == "" {
		lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
		return
	}
	v := w.volume(c.Spec.VolumeName)
	switch {
	case v == nil:
		lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case v.Spec.ClaimRef == nil:
		a.bind(v, c)
	case v.Spec.ClaimRef.UID != c.UID:
		lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
	default:
		a.bind(v, c)
	}
}

// bind makes the two name each other or, when they do already, sets their statuses.
func (a *actions) bind(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) {
	b := Bind(v, c)
	if !equality.Semantic.DeepEqual(b.Volume, v) || !equality.Semantic.DeepEqual(b.Claim, c) {
		a.writes = append(a.writes, b.Writes()...)
		return
	}
	a.setVolume(v, corev1.VolumeBound, "")
	a.setClaim(c, corev1.ClaimBound, v)
}

// setClaim writes the status of a claim; v is its volume, nil for none. The capacity of a claim that is bound already may differ
// from its volume's: it is of the file system.
func (a *actions) setClaim(c *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, v *corev1.PersistentVolume) {
	next := c.DeepCopy()
	next.Status.Phase = phase
	next.Status.AccessModes = nil
	if v == nil {
		next.Status.Capacity, next.Status.CurrentVolumeAttributesClassName = nil, nil
	} else {
		next.Status.AccessModes = v.Spec.AccessModes
		if c.Status.Phase != phase {
			next.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: v.Spec.Capacity[corev1.ResourceStorage]}
			if name := v.Spec.VolumeAttributesClassName; name != nil && *name != "" {
				next.Status.CurrentVolumeAttributesClassName = name
			}
		}
	}
	if !equality.Semantic.DeepEqual(next.Status, c.Status) {
		a.writes = append(a.writes, control.Write{Object: next, Old: c, Subresource: "status"})
	}
}

// setVolume writes the phase of a volume.
func (a *actions) setVolume(v *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) {
	if v.Status.Phase == phase && v.Status.Message == message {
		return
	}
	next := v.DeepCopy()
	next.Status.Phase, next.Status.Message, next.Status.Reason = phase, message, ""
	a.writes = append(a.writes, control.Write{Object: next, Old: v, Subresource: "status"})
}

// namedVolume binds a claim that asks for one volume, when that is free and fits.
func (w world) namedVolume(c *corev1.PersistentVolumeClaim, a *actions) {
	v := w.volume(c.Spec.VolumeName)
	switch {
	case v == nil:
	case v.Spec.ClaimRef == nil:
		if why := mismatch(v, c); why != "" {
			a.say(c, corev1.EventTypeWarning, reasonMismatch, "Cannot bind to requested volume %q: %s", v.Name, why)
			break
		}
		a.bind(v, c)
		return
	case storage.IsVolumeBoundToClaim(v, c):
		a.bind(v, c)
		return
	default:
		a.say(c, corev1.EventTypeWarning, reasonFailedBinding, "volume %q already bound to a different claim.", v.Name)
	}
	a.setClaim(c, corev1.ClaimPending, nil)
}

// mismatch returns why a volume is not what a claim asks for; "" when it is.
func mismatch(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) string {
	has, wants := v.Spec.Capacity[corev1.ResourceStorage], c.Spec.Resources.Requests[corev1.ResourceStorage]
	switch {
	case v.DeletionTimestamp != nil:
		return fmt.Sprintf("the volume is marked for deletion %q", v.Name)
	case has.Cmp(wants) < 0:
		return "requested PV is too small"
	case storage.GetPersistentVolumeClass(v) != storage.GetPersistentVolumeClaimClass(c):
		return "storageClassName does not match"
	case attributesClass(v.Spec.VolumeAttributesClassName) != attributesClass(c.Spec.VolumeAttributesClassName):
		return "volumeAttributesClassName does not match"
	case storage.CheckVolumeModeMismatches(&c.Spec, &v.Spec):
		return "incompatible volumeMode"
	case !storage.CheckAccessModes(c, v):
		return "incompatible accessMode"
	}
	return ""
}

func attributesClass(name *string) string {
	if name == nil {
		return ""
	}
	return *name
}

// anyVolume binds a claim to the smallest free volume that fits, or sees that one is made.
func (w world) anyVolume(c *corev1.PersistentVolumeClaim, a *actions) {
	name := storage.GetPersistentVolumeClaimClass(c)
	class := w.class(name)
	delayed := class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	v, err := w.find(c, delayed)
	if err != nil {
		a.say(c, corev1.EventTypeWarning, reasonFailedBinding, "%v", err)
		return
	}
	if v != nil {
		a.bind(v, c)
		return
	}
	if w.assignClass(c, a) {
		return
	}
	_, selected := c.Annotations[kube.SelectedNode]
	switch {
	case delayed && !selected:
		if why := refused(c, class); why != "" {
			a.say(c, corev1.EventTypeWarning, reasonProvisionFailed, "%s", why)
			break // only a volume that is made by hand can help
		}
		w.sayWhoIsAwaited(c, a)
	case name != "":
		w.provision(c, class, name, a)
	default:
		a.say(c, corev1.EventTypeNormal, reasonFailedBinding, "no persistent volumes available for this claim and no storage class is set")
	}
	if len(a.writes) == 0 {
		a.setClaim(c, corev1.ClaimPending, nil)
	}
}

// find returns the volume that the claim may get from here; nil: none. Of a class that waits for a pod it is one that is bound to the
// claim already: the scheduler chooses among the others. Among the rest, those that allow the fewest access modes beyond what the
// claim asks for come first, and of these the smallest.
func (w world) find(c *corev1.PersistentVolumeClaim, delayed bool) (*corev1.PersistentVolume, error) {
	if delayed {
		mine := control.Index[*corev1.PersistentVolume](w, kube.PersistentVolume, kube.ClaimIndex, c.Namespace+"/"+c.Name)
		return storage.FindMatchingVolume(c, mine, nil, nil, true, true)
	}
	byModes := map[int][]*corev1.PersistentVolume{}
	for _, v := range control.List[*corev1.PersistentVolume](w, kube.PersistentVolume, "") {
		if storage.CheckAccessModes(c, v) {
			byModes[len(v.Spec.AccessModes)] = append(byModes[len(v.Spec.AccessModes)], v)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(byModes)) {
		if v, err := storage.FindMatchingVolume(c, byModes[n], nil, nil, false, true); v != nil || err != nil {
			return v, err
		}
	}
	return nil, nil
}

// assignClass gives a claim without a class the default one, if there is one now. It reports whether it did.
func (w world) assignClass(c *corev1.PersistentVolumeClaim, a *actions) bool {
	if storage.PersistentVolumeClaimHasClass(c) {
		return false
	}
	class := kube.DefaultClass(w.List(kube.StorageClass, ""), kube.DefaultStorage, kube.BetaDefaultStorage)
	if class == nil {
		return false
	}
	next := c.DeepCopy()
	next.Spec.StorageClassName = new(class.GetName())
	a.writes = append(a.writes, control.Write{Object: next, Old: c})
	return true
}

// sayWhoIsAwaited tells in an event for which pods a claim waits.
func (w world) sayWhoIsAwaited(c *corev1.PersistentVolumeClaim, a *actions) {
	var pods []string
	for _, p := range control.Index[*corev1.Pod](w, kube.Pod, kube.ClaimIndex, c.Namespace+"/"+c.Name) {
		if p.Spec.NodeName == "" && !control.PodFinished(p) {
			pods = append(pods, p.Name)
		}
	}
	switch len(pods) {
	case 0:
		a.say(c, corev1.EventTypeNormal, reasonWaitConsumer, "waiting for first consumer to be created before binding")
	case 1:
		a.say(c, corev1.EventTypeNormal, reasonWaitPod, "waiting for pod %s to be scheduled", pods[0])
	default:
		a.say(c, corev1.EventTypeNormal, reasonWaitPod, "waiting for pods %s to be scheduled", strings.Join(pods, ","))
	}
}

// refused returns why the built-in provisioner will not make a volume for the claim, whatever pod comes; "" when it is not its claim.
func refused(c *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) string {
	if class.Provisioner != localpath.Provisioner {
		return ""
	}
	return localpath.Refuses(c, class)
}

// provision makes a volume for the claim, or asks an external provisioner to. The built-in one mostly has nothing to do here: the
// scheduler makes its volumes. What comes here are claims whose node another scheduler has selected, and refusals.
func (w world) provision(c *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, name string, a *actions) {
	failed := func(format string, args ...any) {
		a.say(c, corev1.EventTypeWarning, reasonProvisionFailed, format, args...)
	}
	switch {
	case class == nil:
		failed("storageclass.storage.k8s.io %q not found", name)
	case class.Provisioner == localpath.Provisioner:
		if why := refused(c, class); why != "" {
			failed("%s", why)
			return
		}
		node, ok := control.Get[*corev1.Node](w, kube.Node, "", c.Annotations[kube.SelectedNode])
		if !ok {
			next := c.DeepCopy()
			delete(next.Annotations, kube.SelectedNode)
			a.writes = append(a.writes, control.Write{Object: next, Old: c})
			failed("node %q does not exist: another one may be selected", c.Annotations[kube.SelectedNode])
			return
		}
		b := Provision(c, class, node)
		a.writes = append(a.writes, b.Writes()...)
		a.say(c, corev1.EventTypeNormal, ReasonProvisioned, "Successfully provisioned volume %s", b.Volume.Name)
	case strings.HasPrefix(class.Provisioner, "kubernetes.io/"):
		failed("no volume plugin matched name: %s", class.Provisioner)
	default:
		next := c.DeepCopy()
		if setProvisioner(next, class.Provisioner); !equality.Semantic.DeepEqual(next, c) {
			a.writes = append(a.writes, control.Write{Object: next, Old: c})
			return // its own change brings the claim here again
		}
		a.say(c, corev1.EventTypeNormal, reasonExternal, "Waiting for a volume to be created either by the external provisioner '%s' or manually by the "+
			"system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner)
	}
}
