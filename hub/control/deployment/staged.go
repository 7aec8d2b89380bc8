package deployment

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	fleet "petrel.dev/petrel/hub/control/rollout"
	"petrel.dev/petrel/internal/kube"
)

// reasonStaged is Petrel's own: the rollout waits between two waves, and the progress deadline does not run.
const reasonStaged = "WaitingBetweenWaves"

// staged is what a staged rollout of a Deployment is decided from, beside its ReplicaSets.
type staged struct {
	spec     *fleet.Spec // nil when problems say why, or when the rollout is not staged
	problems []fleet.Problem
	failed   int           // updated pods that have failed
	wait     time.Duration // until the next one may have; 0: none may
}

// readStage reads the annotations, and counts the updated pods that have failed.
func (c *Controller) readStage(st *state) {
	spec, problems := fleet.Parse(st.d.Annotations)
	if spec == nil && len(problems) == 0 {
		c.follow(st.d, false)
		return
	}
	c.follow(st.d, true)
	st.staged = &staged{spec: spec, problems: append(problems, unfit(spec, st.d)...)}
	for _, rs := range st.rss {
		if spec == nil || !sameTemplate(&rs.Spec.Template, &st.d.Spec.Template) {
			continue
		}
		for _, p := range control.Index[*corev1.Pod](c.client, kube.Pod, control.OwnerIndex, string(rs.UID)) {
			if ok, _ := control.PodAvailable(p, st.d.Spec.MinReadySeconds, st.now); ok || p.DeletionTimestamp != nil || control.PodDark(c.client, p) {
				continue
			}
			failed, wait := spec.Failed(p, st.now)
			if failed {
				st.staged.failed++
			}
			st.staged.wait = sooner(st.staged.wait, wait)
		}
	}
}

// unfit returns what of a spec has no meaning for a Deployment.
func unfit(spec *fleet.Spec, d *appsv1.Deployment) []fleet.Problem {
	if spec == nil {
		return nil
	}
	refuse := func(reason string) []fleet.Problem {
		return []fleet.Problem{{Key: kube.RolloutWaves, Value: d.Annotations[kube.RolloutWaves], Reason: reason}}
	}
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return refuse("the strategy Recreate replaces all pods together; use RollingUpdate")
	}
	if slices.ContainsFunc(spec.Waves, fleet.Wave.Selects) {
		return refuse("the waves of a Deployment are percentages of its replicas, because the scheduler chooses the nodes of its pods; " +
			"for waves by node use a DaemonSet, or a Deployment with a nodeSelector for each group of nodes")
	}
	return nil
}

// sooner returns the earlier of two times of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// stage decides how far the rollout may go.
func (r *rollout) stage() {
	r.limit = r.want
	switch {
	case r.staged == nil:
		return
	case len(r.staged.problems) > 0:
		d := fleet.Refused(r.d.Annotations, r.staged.problems)
		r.stages, r.limit = &d, 0
		return
	}
	hash := ""
	if r.current != nil {
		hash = r.current.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	} else {
		hash = templateHash(&r.d.Spec.Template, r.d.Status.CollisionCount)
	}
	healthy := 0
	if r.current != nil {
		healthy = int(r.settled())
	}
	d := r.staged.spec.Decide(fleet.Seen{
		Annotations: r.d.Annotations, Revision: hash, Previous: r.previous(), Total: int(r.want), Now: r.now,
		Progress: r.staged.spec.Counted(int(r.goal()), int(r.sizeOf(r.current)), healthy, r.staged.failed),
	})
	r.stages, r.limit = &d, int64(r.staged.spec.Limit(d.Open, int(r.want)))
}

// previous returns the revision of the latest old ReplicaSet with pods, "" when there is none.
func (r *rollout) previous() string {
	for _, rs := range slices.Backward(r.old) {
		if r.size[rs.UID] > 0 {
			return rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		}
	}
	return ""
}

// holds returns how many live pods of old ReplicaSets stay because the current one may not have their places yet.
func (r *rollout) holds() int64 {
	return max(0, r.goal()-max(r.limit, r.sizeOf(r.current)))
}

// finishStage puts a staged rollout into what is written: its state, its condition, its Events, the way back.
func (r *rollout) finishStage(p *actions) {
	if r.stages == nil {
		if r.staged == nil && kube.FindCondition(p.status.Conditions, kube.RolloutCondition) != nil {
			unset(&p.status, kube.RolloutCondition)
		}
		return
	}
	d := r.stages
	if d.State != (fleet.State{}) {
		p.stage = d.State.Encode()
	}
	had := kube.FindCondition(p.status.Conditions, kube.RolloutCondition)
	for _, e := range d.Events {
		if had == nil || had.Message != e.Message {
			p.stageEvents = append(p.stageEvents, e)
		}
	}
	if had == nil || had.Message != d.Message || had.Reason != d.Reason || had.Status != d.Status {
		place(&p.status, r.now, kube.RolloutCondition, d.Status, d.Reason, d.Message)
	}
	if d.RollBack != "" {
		p.template = r.templateOf(d.RollBack)
		if p.template == nil {
			p.stageEvents = append(p.stageEvents, fleet.Event{Type: corev1.EventTypeWarning, Reason: "RolloutCannotGoBack",
				Message: "Revision " + d.RollBack + " is not kept any more: raise revisionHistoryLimit for the next time, and correct the template by hand"})
		}
	}
	p.after = sooner(sooner(p.after, d.After), r.staged.wait)
}

// templateOf returns the pod template of a revision, nil when there is no ReplicaSet of it any more.
func (r *rollout) templateOf(hash string) *corev1.PodTemplateSpec {
	for _, rs := range r.all() {
		if rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey] == hash {
			t := rs.Spec.Template.DeepCopy()
			delete(t.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
			return t
		}
	}
	return nil
}

// follow notes whether the rollouts of a Deployment are staged: only then its pods are followed.
func (c *Controller) follow(d *appsv1.Deployment, yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if yes {
		c.stagedOnes[control.KeyOf(d)] = true
	} else {
		delete(c.stagedOnes, control.KeyOf(d))
	}
}

// podKeys returns the Deployment of a pod whose rollouts are staged: the failure of a pod does not show in its ReplicaSet.
func (c *Controller) podKeys(ch control.Change) []control.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.stagedOnes) == 0 || ch.New == nil {
		return nil
	}
	ref := metav1.GetControllerOfNoCopy(ch.New)
	if ref == nil || ref.Kind != kube.ReplicaSet.Kind {
		return nil
	}
	rs, ok := c.client.Get(kube.ReplicaSet, ch.New.GetNamespace(), ref.Name)
	if !ok {
		return nil
	}
	if ref = metav1.GetControllerOfNoCopy(rs); ref == nil {
		return nil
	}
	if key := (control.Key{Namespace: rs.GetNamespace(), Name: ref.Name}); c.stagedOnes[key] {
		return []control.Key{key}
	}
	return nil
}
