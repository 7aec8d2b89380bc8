package deployment

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/podset"
	"petrel.dev/petrel/internal/kube"
)

// lookAtImages reports whether the nodes on which old pods serve have the images of the current template, or do without: its pods will most
// likely come to the same nodes. It begins to have them fetched where they are not.
func (c *Controller) lookAtImages(st *state) (ready bool) {
	if _, unavailable := bounds(st.d); c.images == nil || unavailable == 0 || st.d.Spec.Paused {
		return true // new pods come first, or none come
	}
	d := st.d
	hash := templateHash(&d.Spec.Template, nil)
	fetched := podset.Replaceable(c.images, c.client, d, hash, &d.Spec.Template.Spec, func() { c.loop.Enqueue(control.KeyOf(d)) })
	seen := map[string]bool{}
	ready = true
	for _, rs := range st.rss {
		if replicas(rs.Spec.Replicas) == 0 || sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			continue
		}
		for _, p := range control.Index[*corev1.Pod](c.client, kube.Pod, control.OwnerIndex, string(rs.UID)) {
			if n := p.Spec.NodeName; n != "" && !seen[n] && control.PodReady(p) && !control.PodDark(c.client, p) {
				seen[n] = true
				ready = fetched(n) && ready
			}
		}
	}
	return ready
}

// mayBeUnavailable returns how many pods less than wanted may serve now: none while their nodes fetch the images that the new ones need.
func (r *rollout) mayBeUnavailable(d *appsv1.Deployment) int64 {
	if r.fetching {
		return 0
	}
	_, n := bounds(d)
	return n
}
