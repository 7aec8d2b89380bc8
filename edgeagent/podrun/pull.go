package podrun

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/podrun/lifecycle"
	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/internal/kube"
)

// wantedImage is an image that a container of the pod is about to need.
type wantedImage struct {
	key    string // of the worker's images
	ref    string
	policy corev1.PullPolicy
	mount  bool // as a volume
}

// imageOf returns the image that a key of Observed.Images stands for; false when the pod has no such container or volume.
func imageOf(pod *corev1.Pod, key string) (wantedImage, bool) {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Image != nil && lifecycle.VolumeImage(v.Name) == key {
			return wantedImage{key, v.Image.Reference, v.Image.PullPolicy, true}, true
		}
	}
	c := kube.ContainerNamed(pod, key)
	if c == nil {
		return wantedImage{}, false
	}
	return wantedImage{key, c.Image, c.ImagePullPolicy, false}, true
}

// pull has an image that a container's next attempt needs ready, as its policy wants, by a job beside the worker.
func (w *worker) pull(ctx context.Context, pod *corev1.Pod, a lifecycle.Action) {
	key := a.Container
	if a.Volume != "" {
		key = lifecycle.VolumeImage(a.Volume)
	}
	img, ok := imageOf(pod, key)
	c := kube.ContainerNamed(pod, a.Container)
	if !ok || c == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	old := w.mem.Images[img.key]
	if old.Ref != img.ref {
		old = lifecycle.Image{}
	}
	old.Ref, old.InFlight = img.ref, true
	w.mem.Images[img.key] = old
	if earlier := w.pulls[img.key]; earlier != nil { // of another image
		earlier.cancel()
	}
	job := &pulling{cancel}
	w.pulls[img.key] = job
	events, pulls := w.m.events, w.m.pulls
	r := pull.Request{Pod: pod, Image: img.ref, Policy: img.policy, Mount: img.mount, Secrets: w.m.want.Load().set, Turn: w.pullTurn,
		Before: pull.Failure{Reason: old.Fail.Reason, Message: old.Fail.Message, Retry: old.Fail.Retry, Delay: old.Fail.Delay},
		Event:  func(kind, reason, format string, args ...any) { events.Record(pod, c, kind, reason, format, args...) }}
	var f pull.Failure
	w.job("podrun/pull", func() error {
		f = pulls.Fetch(ctx, r)
		return nil
	}, func(err error) result {
		defer cancel()
		if err != nil { // a panic
			f = pulls.Failed(ctx, r, err)
		}
		fail := lifecycle.Failure{Fault: err != nil, Reason: f.Reason, Message: f.Message, Retry: f.Retry, Delay: f.Delay}
		return pulled{key: img.key, job: job, image: lifecycle.Image{Ref: img.ref, Ready: fail.Reason == "" && ctx.Err() == nil, Fail: fail}}
	})
}

// pulling is an image on its way to this node.
type pulling struct{ cancel context.CancelFunc }

// pulled is the end of a pull.
type pulled struct {
	key   string // of the worker's images
	job   *pulling
	image lifecycle.Image
}

func (r pulled) apply(_ context.Context, w *worker) {
	if w.pulls[r.key] == r.job { // otherwise it is another image by now
		delete(w.pulls, r.key)
		w.mem.Images[r.key] = r.image
	}
}

// stopPulls gives up the images of a pod that is to go: the link is for others.
func (w *worker) stopPulls() {
	for _, p := range w.pulls {
		p.cancel()
	}
}
