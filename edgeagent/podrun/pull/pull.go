// Package pull brings images to the node: it asks for an image as its container's policy wants, with the pod's logins, when the
// pod and the node have a slot for it. Why one could not be had it returns with kubelet's reason and text.
package pull

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun/slots"
)

// Reasons of containers that wait for their image; kubelet's.
const (
	reasonFailed = "ErrImagePull"
	reasonWait   = "ImagePullBackOff"
	reasonNever  = "ErrImageNeverPull"
	reasonName   = "InvalidImageName"
)

// Back-off of an image that could not be had: doubled with each try. The figures are kubelet's.
const (
	backoffFirst = 10 * time.Second
	backoffMax   = 5 * time.Minute
)

// Bounds of the pulls of a node. A pull may be a large image on a slow link, which goes on beside the next ones, but not any
// number of them.
const (
	atOnce = 3
	turn   = 10 * time.Minute
	beyond = 3
)

// Runtime is what pulls need of the container runtime; cruntime.Runtime says what its methods do.
type Runtime interface {
	Image(ctx context.Context, ref string) (cruntime.Image, error)
	Pull(ctx context.Context, ref string, creds []cruntime.Credential) (cruntime.Image, error)
}

// Puller has the slots that the pods of a node share. Its methods may be called at any time.
type Puller struct {
	run     Runtime // for images that containers run
	mount   Runtime // for images that are volumes
	now     func() time.Time
	coming  *slots.Slots // for images that are not here
	present *slots.Slots // for images that are here, and may have changed: they do not queue behind the others
	away    registries
}

// New makes a Puller. run has images for containers, mount has them for volumes.
func New(run, mount Runtime, now func() time.Time) *Puller {
	return &Puller{run: run, mount: mount, now: now, coming: slots.New(atOnce, turn, beyond), present: slots.New(atOnce, turn, beyond),
		away: registries{m: map[string]time.Time{}}}
}

// Turn is one pod's: of a pod one image comes at a time, whatever slots are free.
type Turn chan struct{}

// NewTurn makes a pod's Turn.
func NewTurn() Turn { return make(Turn, 1) }

// Request is an image that the next attempt of a container needs: its own, or one that it mounts.
type Request struct {
	Pod     *corev1.Pod
	Image   string
	Policy  corev1.PullPolicy // as the spec has it
	Mount   bool              // the image is a volume
	Secrets Secrets
	Turn    Turn
	Before  Failure // of the last try
	// Event records an event of the container; it may be called from any goroutine.
	Event func(kind, reason, format string, args ...any)
}

// Failure is why an image could not be had, as a container's status has it, and when to try again. The zero value is none.
type Failure struct {
	Reason, Message string
	Retry           time.Time
	Delay           time.Duration // of the back-off that Retry came from
}

// Fetch finds or pulls an image. It returns no Failure when ctx has ended: the image is not wanted any more.
func (p *Puller) Fetch(ctx context.Context, r Request) Failure {
	image := r.Image
	_, missing := p.runtime(r.Mount).Image(ctx, image)
	policy := Policy(image, r.Policy)
	switch {
	case errors.Is(missing, cruntime.ErrConfig):
		return p.failed(ctx, r, reasonName, missing)
	case policy == corev1.PullNever && missing == nil, policy == corev1.PullIfNotPresent && missing == nil:
		r.Event(corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine", image)
		return Failure{}
	case policy == corev1.PullNever:
		r.Event(corev1.EventTypeWarning, reasonNever, "Container image %q is not present with pull policy of Never", image)
		//lint:ignore ST1005 kubelet's text
		why := fmt.Errorf("Container image %q is not present with pull policy of Never", image)
		if e := (*cruntime.PlatformError)(nil); errors.As(missing, &e) {
			why = e
		}
		f := p.failed(ctx, r, reasonNever, why)
		f.Retry = p.now().Add(backoffFirst) // it may be imported at any moment
		return f
	case missing != nil && !errors.Is(missing, cruntime.ErrNotFound):
		return p.failed(ctx, r, reasonFailed, missing)
	}
	places := p.coming
	if missing == nil {
		places = p.present
	}
	err := inTurn(ctx, r.Turn, places, func(ctx context.Context) error { return p.fromRegistry(ctx, r, missing == nil) })
	if err != nil {
		return p.failed(ctx, r, reasonFailed, err)
	}
	return Failure{}
}

// Here reports whether an image is on the node, for a container or, with mount, as a volume.
func (p *Puller) Here(ctx context.Context, image string, mount bool) bool {
	_, err := p.runtime(mount).Image(ctx, image)
	return err == nil
}

// runtime returns what has images for a container or, with mount, as volumes.
func (p *Puller) runtime(mount bool) Runtime {
	if mount {
		return p.mount
	}
	return p.run
}

// Failed makes of an error, which did not come from the runtime, a Failure like any other.
func (p *Puller) Failed(ctx context.Context, r Request, err error) Failure {
	return p.failed(ctx, r, reasonFailed, err)
}

func (p *Puller) failed(ctx context.Context, r Request, reason string, err error) Failure {
	if ctx.Err() != nil {
		return Failure{}
	}
	delay := min(max(2*r.Before.Delay, backoffFirst), backoffMax)
	r.Event(corev1.EventTypeWarning, "Failed", "Failed to pull image %q: %v", r.Image, err)
	r.Event(corev1.EventTypeWarning, "Failed", "Error: %s", reason)
	f := Failure{Reason: reason, Message: err.Error(), Retry: p.now().Add(delay), Delay: delay}
	if r.Before.Reason != "" && reason == reasonFailed {
		r.Event(corev1.EventTypeNormal, "BackOff", "Back-off pulling image %q", r.Image)
		f.Reason, f.Message = reasonWait, fmt.Sprintf("Back-off pulling image %q: %s: %v", r.Image, reasonFailed, err)
	}
	return f
}

// inTurn runs a pull when the pod and the node have a slot for it.
func inTurn(ctx context.Context, pod Turn, places *slots.Slots, pull func(context.Context) error) error {
	select {
	case pod <- struct{}{}:
		defer func() { <-pod }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return places.Run(ctx, nil, pull)
}

// fromRegistry asks an image's registry for it. present: the image is here already, and does when the registry is away.
func (p *Puller) fromRegistry(ctx context.Context, r Request, present bool) error {
	image := r.Image
	if present && p.away.is(registryOf(image), p.now()) {
		r.Event(corev1.EventTypeWarning, "RegistryUnreachable", "Registry of image %q did not answer a moment ago, using the image that is present", image)
		return nil
	}
	r.Event(corev1.EventTypeNormal, "Pulling", "Pulling image %q", image)
	begin := p.now()
	img, err := p.runtime(r.Mount).Pull(ctx, image, credentials(r.Pod, image, r.Secrets))
	if errors.Is(err, cruntime.ErrUnreachable) {
		p.away.note(registryOf(image), p.now())
	}
	switch {
	case err == nil:
		r.Event(corev1.EventTypeNormal, "Pulled", "Successfully pulled image %q in %s. Image ID: %s", image, p.now().Sub(begin).Round(time.Millisecond), img.ID)
		return nil
	case present && errors.Is(err, cruntime.ErrUnreachable):
		// Offline is a normal state: what is here runs, and a later start asks the registry again.
		r.Event(corev1.EventTypeWarning, "RegistryUnreachable", "Registry of image %q does not answer, using the image that is present: %v", image, err)
		return nil
	}
	return err
}
