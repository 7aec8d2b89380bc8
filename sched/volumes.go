package sched

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	storage "k8s.io/component-helpers/storage/volume"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/localpath"
)

// Why a node cannot have a pod's volumes, in the words of Kubernetes' scheduler.
const (
	whyAffinity = "node(s) didn't match PersistentVolume's node affinity"
	whyUnbound  = "node(s) didn't find available persistent volumes to bind"
	whyNoVolume = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
	whyZone     = "node(s) had no available volume zone"
	whyOnePod   = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)

// ClaimPlan is what is to become of a claim together with the binding of its pod.
type ClaimPlan struct {
	Claim *corev1.PersistentVolumeClaim
	// Volume is the one that the claim gets; nil: one is to be made on the node by Class's provisioner.
	Volume *corev1.PersistentVolume
	Class  *storagev1.StorageClass // of the claim, never nil
	Node   *corev1.Node            // the pod's, never nil
}

// claims holds what is known of volumes: the part of a Snapshot that only pods with claims ask for.
type claims struct {
	claims  map[string]*corev1.PersistentVolumeClaim // by namespace/name
	volumes map[string]*corev1.PersistentVolume
	classes map[string]*storagev1.StorageClass
	users   map[string]int // pods on nodes, by namespace/name of their claims; no entry is 0
}

func newClaims() claims {
	return claims{claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{},
		classes: map[string]*storagev1.StorageClass{}, users: map[string]int{}}
}

// SetClaim adds or replaces a claim.
func (c *claims) SetClaim(claim *corev1.PersistentVolumeClaim) {
	c.claims[claim.Namespace+"/"+claim.Name] = claim
}

// RemoveClaim forgets a claim.
func (c *claims) RemoveClaim(namespace, name string) { delete(c.claims, namespace+"/"+name) }

// SetVolume adds or replaces a volume.
func (c *claims) SetVolume(v *corev1.PersistentVolume) { c.volumes[v.Name] = v }

// RemoveVolume forgets a volume.
func (c *claims) RemoveVolume(name string) { delete(c.volumes, name) }

// SetStorageClass adds or replaces a class.
func (c *claims) SetStorageClass(class *storagev1.StorageClass) { c.classes[class.Name] = class }

// RemoveStorageClass forgets a class.
func (c *claims) RemoveStorageClass(name string) { delete(c.classes, name) }

// use counts a pod that comes to a node (by 1) or leaves it (by -1).
func (c *claims) use(p *Pod, by int) {
	for _, key := range p.claims {
		if c.users[key] += by; c.users[key] == 0 {
			delete(c.users, key)
		}
	}
}

// unready returns why the pod can go nowhere, whatever the nodes are; "" when that depends on them.
func (c *claims) unready(p *Pod) string {
	if len(p.claims) == 0 {
		return ""
	}
	immediate := false
	for i := range p.Object.Spec.Volumes {
		name, ephemeral := kube.VolumeClaim(p.Object, &p.Object.Spec.Volumes[i])
		if name == "" {
			continue
		}
		claim := c.claims[p.Object.Namespace+"/"+name]
		switch {
		case claim == nil && ephemeral:
			return fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
		case claim == nil:
			return fmt.Sprintf("persistentvolumeclaim %q not found", name)
		case claim.Status.Phase == corev1.ClaimLost:
			return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
		case claim.DeletionTimestamp != nil:
			return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		}
		if ephemeral {
			if err := kube.CheckOwnClaim(p.Object, claim); err != nil {
				return err.Error()
			}
		}
		if bound(claim) {
			continue
		}
		class := c.delayed(claim)
		if class == nil {
			immediate = true
			continue
		}
		if class.Provisioner == localpath.Provisioner && len(c.candidates(claim)) == 0 {
			if why := localpath.Refuses(claim, class); why != "" {
				return fmt.Sprintf("persistentvolumeclaim %q: %s", name, why)
			}
		}
	}
	if immediate {
		return "pod has unbound immediate PersistentVolumeClaims"
	}
	return ""
}

// bound reports whether a claim has its volume.
func bound(claim *corev1.PersistentVolumeClaim) bool {
	_, completed := claim.Annotations[kube.BindCompleted]
	return completed && claim.Spec.VolumeName != ""
}

// delayed returns the class of a claim that waits for a pod, nil for other claims. A claim that names its volume does not wait.
func (c *claims) delayed(claim *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	class := c.classes[storage.GetPersistentVolumeClaimClass(claim)]
	if class == nil || claim.Spec.VolumeName != "" || class.VolumeBindingMode == nil || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer {
		return nil
	}
	return class
}

// candidates returns the volumes that a claim may get on some node.
func (c *claims) candidates(claim *corev1.PersistentVolumeClaim) (list []*corev1.PersistentVolume) {
	class := storage.GetPersistentVolumeClaimClass(claim)
	for _, v := range c.volumes {
		if storage.GetPersistentVolumeClass(v) == class && (v.Spec.ClaimRef == nil || storage.IsVolumeBoundToClaim(v, claim)) {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b *corev1.PersistentVolume) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// volumes refuses nodes that cannot have the pod's volumes.
type volumes struct {
	claims *claims
	pod    *Pod
	// fixed are the volumes that the pod's claims have; nil for one that does not exist.
	fixed []fixedVolume
	// open are the claims that get a volume with the pod, those that ask for least first.
	open []openClaim
	// single are the claims that one pod at a time may use, with the number of pods that do.
	single map[string]int
}

type fixedVolume struct {
	exists   bool
	affinity *nodeaffinity.LazyErrorNodeSelector // nil: any node
	zones    map[string][]string                 // by label: what a node in a zone must have; upstream's VolumeZone
}

// openClaim is a claim with the volumes that it may get. Those on the disks of single nodes are found by the nodes' host names:
// otherwise each node would be compared with the disks of all others.
type openClaim struct {
	claim  *corev1.PersistentVolumeClaim
	class  *storagev1.StorageClass
	byHost map[string][]*corev1.PersistentVolume
	others []*corev1.PersistentVolume
}

func (f *volumes) prepare(s *Snapshot, p *Pod) bool {
	f.claims, f.pod = &s.claims, p
	for _, key := range p.claims {
		claim := f.claims.claims[key]
		if claim == nil {
			continue // unready has refused the pod, unless it is only looked at
		}
		if slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
			if f.single == nil {
				f.single = map[string]int{}
			}
			f.single[key] = f.claims.users[key]
		}
		if bound(claim) {
			f.fixed = append(f.fixed, fix(f.claims.volumes[claim.Spec.VolumeName]))
		} else if class := f.claims.delayed(claim); class != nil {
			o := openClaim{claim: claim, class: class, byHost: map[string][]*corev1.PersistentVolume{}}
			for _, v := range f.claims.candidates(claim) {
				hosts := hostsOf(v)
				for _, h := range hosts {
					o.byHost[h] = append(o.byHost[h], v)
				}
				if hosts == nil {
					o.others = append(o.others, v)
				}
			}
			f.open = append(f.open, o)
		}
	}
	slices.SortStableFunc(f.open, func(a, b openClaim) int {
		x, y := a.claim.Spec.Resources.Requests[corev1.ResourceStorage], b.claim.Spec.Resources.Requests[corev1.ResourceStorage]
		return x.Cmp(y)
	})
	return len(p.claims) > 0
}

// zoneLabels are the labels of volumes that bind them to nodes with the same.
var zoneLabels = []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion}

func fix(v *corev1.PersistentVolume) fixedVolume {
	if v == nil {
		return fixedVolume{}
	}
	out := fixedVolume{exists: true}
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		out.affinity = nodeaffinity.NewLazyErrorNodeSelector(a.Required)
	}
	for _, key := range zoneLabels {
		if value, ok := v.Labels[key]; ok {
			if out.zones == nil {
				out.zones = map[string][]string{}
			}
			out.zones[key] = strings.Split(value, "__")
		}
	}
	return out
}

// hostsOf returns the host names of the only nodes that can have a volume, nil when its affinity is of another form.
func hostsOf(v *corev1.PersistentVolume) []string {
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil || len(v.Spec.NodeAffinity.Required.NodeSelectorTerms) != 1 {
		return nil
	}
	for _, r := range v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions {
		if r.Key == corev1.LabelHostname && r.Operator == corev1.NodeSelectorOpIn {
			return r.Values
		}
	}
	return nil
}

func (f *volumes) allows(n *node) bool { return f.why(n) == "" }

func (f *volumes) cures() Change { return NodeCame | NodeLabels | Volumes }

// movable is true where another pod has a claim that one at a time may use.
func (f *volumes) movable(n *node) bool { return f.why(n) == whyOnePod }

func (f *volumes) adjust(_ *node, p *Pod, by int32) {
	for _, key := range p.claims {
		if _, ok := f.single[key]; ok {
			f.single[key] += int(by)
		}
	}
}

func (f *volumes) reasons(n *node) []string { return []string{f.why(n)} }

// why returns why n cannot have the pod's volumes; "" when it can.
func (f *volumes) why(n *node) string {
	for _, users := range f.single {
		if users > 0 {
			return whyOnePod
		}
	}
	for i := range f.fixed {
		v := &f.fixed[i]
		if !v.exists {
			return whyNoVolume
		}
		if v.affinity != nil {
			if ok, err := v.affinity.Match(n.obj); !ok || err != nil {
				return whyAffinity
			}
		}
		if !v.inZone(n.obj.Labels) {
			return whyZone
		}
	}
	_, why := f.plan(n)
	return why
}

// inZone reports whether a node with these labels is where the volume's zone labels want it. Nodes without any such label are
// everywhere.
func (v *fixedVolume) inZone(have map[string]string) bool {
	somewhere := false
	for _, key := range zoneLabels {
		_, ok := have[key]
		somewhere = somewhere || ok
	}
	if !somewhere {
		return true
	}
	for key, want := range v.zones {
		if !slices.Contains(want, have[key]) {
			return false
		}
	}
	return true
}

// plan returns which volumes the open claims get on n, or why that is not possible.
func (f *volumes) plan(n *node) (plans []ClaimPlan, why string) {
	taken := map[string]*corev1.PersistentVolume{}
	for i := range f.open {
		o := &f.open[i]
		node, selected := o.claim.Annotations[kube.SelectedNode]
		if selected && node != n.name {
			return nil, whyUnbound
		}
		plan := ClaimPlan{Claim: o.claim, Class: o.class, Node: n.obj}
		if !selected {
			here := o.others
			if local := o.byHost[n.obj.Labels[corev1.LabelHostname]]; len(local) > 0 {
				here = append(slices.Clip(here), local...)
			}
			v, err := storage.FindMatchingVolume(o.claim, here, n.obj, taken, true, true)
			if err != nil {
				return nil, whyUnbound
			}
			if plan.Volume = v; v != nil {
				taken[v.Name] = v
			}
		}
		if plan.Volume == nil && !provides(o.class, o.claim, n.obj) {
			return nil, whyUnbound
		}
		plans = append(plans, plan)
	}
	return plans, ""
}

// provides reports whether the class can have a volume made on the node.
func provides(class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim, n *corev1.Node) bool {
	switch class.Provisioner {
	case "", storage.NotSupportedProvisioner:
		return false
	case localpath.Provisioner:
		if localpath.Refuses(claim, class) != "" {
			return false
		}
	}
	return inTopology(class.AllowedTopologies, n.Labels)
}

// inTopology reports whether one of the terms selects a node with these labels; none at all allow every node.
func inTopology(terms []corev1.TopologySelectorTerm, have map[string]string) bool {
	for _, t := range terms {
		if !slices.ContainsFunc(t.MatchLabelExpressions, func(r corev1.TopologySelectorLabelRequirement) bool {
			value, ok := have[r.Key]
			return !ok || !slices.Contains(r.Values, value)
		}) && len(t.MatchLabelExpressions) > 0 {
			return true
		}
	}
	return len(terms) == 0
}

// planClaims returns what is to become of the pod's claims on the node that it goes to.
func (s *Snapshot) planClaims(p *Pod, node string) []ClaimPlan {
	if len(p.claims) == 0 {
		return nil
	}
	f := &volumes{}
	f.prepare(s, p)
	plans, _ := f.plan(s.nodes[node])
	return plans
}

// Claims returns the keys (namespace/name) of the pod's claims. They belong to the pod.
func (p *Pod) Claims() []string { return p.claims }
