package podrun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/podrun/resize"
	"petrel.dev/petrel/edgeagent/podspec"
	"petrel.dev/petrel/internal/kube"
)

// allocate returns the pod with what the node has allocated to it, and allocates before what its spec asks for, when there is room.
// A pod that the node has not let in has nothing yet; one that goes or has ended gets nothing more.
func (w *worker) allocate(d lifecycle.Target) *corev1.Pod {
	switch {
	case !w.mem.Admitted:
		if !d.Gone {
			w.save(d.Pod)
		}
		return d.Pod
	case w.allocation.None():
		w.allocation = resize.Of(d.Pod)
	case !d.Deleting() && !lifecycle.Ended(w.mem.Last.Phase):
		w.reconsider(d.Pod)
	}
	if w.allocatedOf != d.Pod {
		w.allocatedOf, w.allocated = d.Pod, w.allocation.In(d.Pod)
		w.show()
	}
	if !d.Gone {
		w.save(w.allocated)
	}
	return w.allocated
}

// reconsider compares what a pod's spec asks for with what the pod has, and decides under the same lock as the admission of new pods.
func (w *worker) reconsider(pod *corev1.Pod) {
	if w.allocatedOf == pod && w.allocated == pod {
		return
	}
	r := &w.mem.Resize
	had := w.allocation.In(pod)
	if had == pod {
		if r.Pending.Reason != "" { // taken back
			r.Pending = lifecycle.Rejection{}
			w.show()
		}
		return
	}
	w.m.admitting.Lock()
	defer w.m.admitting.Unlock()
	why := w.m.judge(w.handle, had, pod)
	if why.Reason != "" {
		news := why != r.Pending
		r.Pending = why
		w.show()
		if news {
			w.m.events.Record(pod, nil, corev1.EventTypeWarning, "Resize"+why.Reason, "%s", resizeText("Pod resize "+why.Reason, pod, pod.Generation, why.Message))
		}
		return
	}
	w.allocation, w.allocatedOf = resize.Of(pod), nil
	w.allocated = pod
	*r = lifecycle.Resize{Bounds: r.Bounds, Generation: pod.Generation}
	w.mem.Volumes = false // files of the downward API show resources
	w.save(pod)
	w.show() // before the next pod is compared with this one
	w.m.events.Record(pod, nil, corev1.EventTypeNormal, "ResizeStarted", "%s", resizeText("Pod resize started", pod, pod.Generation, ""))
}

// judge answers the resize of a pod that has what is in had. The caller holds admitting.
func (m *Manager) judge(h *handle, had, wants *corev1.Pod) lifecycle.Rejection {
	if len(m.cfg.Allocatable) == 0 {
		return lifecycle.Rejection{}
	}
	want := m.want.Load()
	claims := []resize.Claim{h.claim(had, wants)}
	for _, other := range m.all() {
		if other == h {
			continue
		}
		if pod := other.occupies(want); pod != nil {
			wants := pod
			if s := other.shown.Load(); s.deferred {
				wants = s.pod
			}
			claims = append(claims, other.claim(pod, wants))
		}
	}
	v := resize.Decide(h.uid, claims, resize.AmountOf(m.cfg.Allocatable))
	return lifecycle.Rejection{Reason: v.Reason, Message: v.Message}
}

// claim is what the pod has of the node, at least, and what it wants.
func (h *handle) claim(has, wants *corev1.Pod) resize.Claim {
	s := h.shown.Load()
	c := resize.Claim{UID: h.uid, Has: resize.AmountOf(kube.PodRequests(withStatus(has, s.last))), Wants: resize.AmountOf(kube.PodSpecRequests(wants)),
		Pending: has != wants, Guaranteed: kube.QOS(wants) == corev1.PodQOSGuaranteed}
	if wants.Spec.Priority != nil {
		c.Priority = *wants.Spec.Priority
	}
	if p := kube.FindCondition(s.last.Conditions, corev1.PodResizePending); p != nil {
		c.Since = p.LastTransitionTime.Unix()
	}
	return c
}

// withStatus returns a pod with a status, of which only what containers have counts: the rest is about another allocation.
func withStatus(pod *corev1.Pod, st *corev1.PodStatus) *corev1.Pod {
	out := *pod
	out.Status = corev1.PodStatus{Resources: st.Resources, AllocatedResources: st.AllocatedResources,
		ContainerStatuses: st.ContainerStatuses, InitContainerStatuses: st.InitContainerStatuses}
	return &out
}

// roomChanged has every pod looked at whose resize waits for room.
func (m *Manager) roomChanged() {
	for _, h := range m.all() {
		if h.shown.Load().deferred {
			h.inbox.poke()
		}
	}
}

// resizePod gives the pod and its containers the resources that are allocated to them.
func (w *worker) resizePod(ctx context.Context, pod *corev1.Pod, o lifecycle.Observed, a lifecycle.Action) {
	h, node := w.handle, w.m.node()
	err := w.try(ctx, stepLimit, "resizing the pod", func(ctx context.Context) error { return h.actuate(ctx, node, pod, o.Containers, a) })
	r := &w.mem.Resize
	switch {
	case ctx.Err() != nil:
	case err == nil:
		r.Bounds, r.Fail = a.Bounds, lifecycle.Failure{}
		w.m.roomChanged()
	default:
		delay := min(max(2*r.Fail.Delay, time.Second), time.Minute)
		if r.Fail.Message != err.Error() {
			w.m.events.Record(pod, nil, corev1.EventTypeWarning, "ResizeError", "%s", resizeText("Pod resize error", pod, r.Generation, err.Error()))
		}
		r.Fail = lifecycle.Failure{Reason: corev1.PodReasonError, Message: err.Error(), Retry: w.m.cfg.Now().Add(delay), Delay: delay}
	}
}

// actuate makes the pod's limits large enough, changes the containers, and only then makes the pod's limits as small as they should
// be. Nothing is begun that would take memory from what uses it.
func (h *handle) actuate(ctx context.Context, node podspec.Node, pod *corev1.Pod, list []cruntime.Container, a lifecycle.Action) error {
	rt, bounds := h.m.cfg.Runtime, node.Bounds(pod)
	if err := rt.BoundPod(ctx, h.uid, bounds, true); err != nil {
		return err
	}
	running := map[string]string{}
	for i := range list {
		if list[i].State == cruntime.Running {
			running[list[i].Name] = list[i].ID
		}
	}
	if err := h.fits(ctx, node, pod, running, a); err != nil {
		return err
	}
	for _, name := range a.Resize {
		c := kube.ContainerNamed(pod, name)
		err := rt.Update(ctx, running[name], node.Resources(pod, c), podspec.ShareOf(pod, c).String())
		if err != nil && !errors.Is(err, cruntime.ErrNotFound) { // one that has ended meanwhile gets it when it starts
			return err
		}
	}
	if !a.Bounds.Settled {
		return nil
	}
	return rt.BoundPod(ctx, h.uid, bounds, false)
}

// fits refuses limits of memory below what is used: on version 2 of cgroups the kernel would end processes for them.
func (h *handle) fits(ctx context.Context, node podspec.Node, pod *corev1.Pod, running map[string]string, a lifecycle.Action) error {
	var errs []error
	check := func(id, what string, want int64) error {
		if want == 0 {
			return nil
		}
		use, limit, err := h.m.cfg.Runtime.MemoryUse(ctx, h.uid, id)
		if errors.Is(err, cruntime.ErrNotFound) {
			return nil
		}
		if (limit == 0 || want < limit) && use >= want {
			errs = append(errs, fmt.Errorf("attempting to set %s memory limit (%d) below current usage (%d)", what, want, use))
		}
		return err
	}
	if a.Bounds.Settled {
		if err := check("", "pod", node.Bounds(pod).MemoryLimit); err != nil {
			return err
		}
	}
	for _, name := range a.Resize {
		if err := check(running[name], fmt.Sprintf("container %q", name), node.Resources(pod, kube.ContainerNamed(pod, name)).MemoryLimit); err != nil {
			return err
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("cannot decrease memory limits: %w", utilerrors.NewAggregate(errs))
}

// resizeDone records the end of a resize.
func (w *worker) resizeDone(pod *corev1.Pod, before, now *corev1.PodStatus) {
	done := kube.FindCondition(before.Conditions, corev1.PodResizeInProgress)
	if done == nil || kube.FindCondition(now.Conditions, corev1.PodResizeInProgress) != nil || lifecycle.Ended(now.Phase) {
		return
	}
	w.m.events.Record(pod, nil, corev1.EventTypeNormal, "ResizeCompleted", "%s", resizeText("Pod resize completed", pod, done.ObservedGeneration, ""))
}

// resizeText is the text of an event about a resize: kubelet's, with the resources of all containers as JSON.
func resizeText(text string, pod *corev1.Pod, generation int64, why string) string {
	type part struct {
		Name      string                      `json:"name"`
		Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	}
	parts := func(list []corev1.Container) (out []part) {
		for i := range list {
			out = append(out, part{list[i].Name, list[i].Resources})
		}
		return out
	}
	b, err := json.Marshal(struct {
		InitContainers []part `json:"initContainers,omitempty"`
		Containers     []part `json:"containers,omitempty"`
		Generation     int64  `json:"generation"`
		Error          string `json:"error,omitempty"`
	}{parts(pod.Spec.InitContainers), parts(pod.Spec.Containers), generation, why})
	if err != nil {
		return text
	}
	return text + ": " + string(b)
}
