package daemonset

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/revision"
	"petrel.dev/petrel/hub/control/rollout"
	"petrel.dev/petrel/internal/kube"
)

// stage decides how far the rollout may go when the DaemonSet's annotations stage it.
func (st *state) stage(revisions []*appsv1.ControllerRevision) {
	spec, problems := rollout.Parse(st.ds.Annotations)
	if spec != nil && st.ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		problems = append(problems, rollout.Problem{Key: kube.RolloutWaves, Value: st.ds.Annotations[kube.RolloutWaves],
			Reason: "with the update strategy OnDelete the user replaces pods; use RollingUpdate"})
	}
	if len(problems) > 0 {
		d := rollout.Refused(st.ds.Annotations, problems)
		st.staged = &d
		return
	}
	if spec == nil {
		return
	}
	nodes := st.members(spec)
	waves, progress := spec.Place(string(st.ds.UID), nodes)
	d := spec.Decide(rollout.Seen{Annotations: st.ds.Annotations, Revision: st.hash, Previous: st.previous(revisions), Progress: progress, Total: len(nodes), Now: st.now})
	st.staged, st.waves = &d, waves
	st.again(d.After)
}

// members returns the nodes that take the pod, with what is known of their pods.
func (st *state) members(spec *rollout.Spec) (out []rollout.Node) {
	for _, n := range st.nodes {
		if !n.bind && !(n.dark && len(st.pods[n.name]) > 0) {
			continue // a dark node has a taint that refuses the pod, and is a member still
		}
		m := rollout.Node{Name: n.name, Labels: n.labels, Dark: n.dark}
		if fresh, old, ok := st.pair(st.pods[n.name]); ok && fresh != nil && !n.dark {
			m.Healthy = old == nil && st.available(fresh)
			m.Updated = old == nil
			if !m.Healthy {
				failed, wait := spec.Failed(fresh, st.now)
				m.Failed = failed && m.Updated
				st.again(wait)
			}
		}
		out = append(out, m)
	}
	return out
}

// previous returns the latest revision that a pod is of which is not updated, "" when there is none.
func (st *state) previous(revisions []*appsv1.ControllerRevision) string {
	used := map[string]bool{}
	for _, pods := range st.pods {
		for _, p := range pods {
			if p.DeletionTimestamp == nil && !st.updated(p) {
				used[p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
			}
		}
	}
	for _, cr := range slices.Backward(revisions) {
		if h := cr.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]; h != "" && used[h] {
			return h
		}
	}
	return ""
}

// closed reports whether a node's old pod has to stay for now.
func (st *state) closed(node string) bool {
	return st.staged != nil && st.waves[node] >= st.staged.Open
}

// condition returns the conditions with that of a staged rollout, or without it.
func (st *state) condition(list []appsv1.DaemonSetCondition) []appsv1.DaemonSetCondition {
	if st.staged == nil {
		if kube.FindCondition(list, kube.RolloutCondition) == nil {
			return list
		}
		return kube.RemoveCondition(list, kube.RolloutCondition)
	}
	return kube.SetCondition(list, appsv1.DaemonSetCondition{Type: kube.RolloutCondition, Status: st.staged.Status, Reason: st.staged.Reason,
		Message: st.staged.Message, LastTransitionTime: metav1.NewTime(st.now)})
}

// keepStage writes the state of a staged rollout into the annotations, reports its Events once it is written, and goes back to an earlier template
// when there were too many failures.
func (c *Controller) keepStage(ctx context.Context, st *state, revisions []*appsv1.ControllerRevision) error {
	up := st.ds.DeepCopy()
	if up.Annotations == nil {
		up.Annotations = map[string]string{}
	}
	text := st.staged.State.Encode()
	if st.staged.State == (rollout.State{}) {
		text = up.Annotations[kube.RolloutState] // refused before it began
	}
	write := text != up.Annotations[kube.RolloutState]
	if write {
		up.Annotations[kube.RolloutState] = text
	}
	if back := st.staged.RollBack; back != "" {
		if cr := byHash(revisions, back); cr != nil {
			template, err := revision.Template(cr)
			if err != nil {
				return err
			}
			up.Spec.Template, write = *template, true
		} else {
			st.staged.Events = append(st.staged.Events, rollout.Event{Type: corev1.EventTypeWarning, Reason: "RolloutCannotGoBack",
				Message: "Revision " + back + " is not kept any more: raise revisionHistoryLimit for the next time, and correct the template by hand"})
		}
	}
	if !write {
		c.reportStage(st)
		return nil
	}
	got, err := c.client.Update(ctx, up, "")
	if err != nil {
		return control.IgnoreNotFound(err)
	}
	c.reportStage(st)
	st.ds = got.(*appsv1.DaemonSet)
	return nil
}

// reportStage records the Events of a decision. One that repeats what the condition says already is left out.
func (c *Controller) reportStage(st *state) {
	had := kube.FindCondition(st.ds.Status.Conditions, kube.RolloutCondition)
	for _, e := range st.staged.Events {
		if had == nil || had.Message != e.Message {
			c.events.Event(st.ds, e.Type, e.Reason, "%s", e.Message)
		}
	}
}

func byHash(revisions []*appsv1.ControllerRevision, hash string) *appsv1.ControllerRevision {
	for _, cr := range revisions {
		if cr.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == hash {
			return cr
		}
	}
	return nil
}
