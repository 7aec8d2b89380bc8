package podset

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Config is what Pods needs. Fields are required unless they say otherwise.
type Config[O kube.Object] struct {
	Client   control.Client
	Events   control.Events // as the owner's controller
	Kind     kube.GVK       // of the owners
	Selector func(owner O) *metav1.LabelSelector
	// Finalizer is what every pod has that the owner has still to count, "" for kinds that count no ends. Adopted pods get it, and
	// released ones lose it. With it, pods that have ended are adopted and released as well: their ends count.
	Finalizer string
	// Named reports whether the pod has a name that the owner gives. Then no other pods are adopted, and those with such a name
	// even when they have ended, since they are in the way of their successors. nil: the names of pods mean nothing.
	Named func(owner O, pod *corev1.Pod) bool
	// Report returns the text of the event about a pod that was made or deleted (verb "create" or "delete"), or could not be
	// (err). nil: the texts that most kinds have.
	Report func(owner O, verb, pod string, err error) string
}

// Pods finds, makes and deletes the pods of owners of one kind. Its methods may be called from several workers, each with
// an owner of its own, as control.Loop does. owner is as the cache has it.
type Pods[O kube.Object] struct {
	cfg      Config[O]        // does not change after New
	orphans  *control.Orphans // pods without a controller, kept by Keys
	refused  refusals         // has its own lock
	gathered control.Gatherer // has its own lock
}

// New returns the Pods of a controller. Keys must be its loop's only source of Pods.
func New[O kube.Object](cfg Config[O]) *Pods[O] {
	return &Pods[O]{cfg: cfg, orphans: control.NewOrphans(cfg.Client, kube.Pod)}
}

// Keys is the Source.Keys for Pods. It returns the owners that the pod belongs to or has belonged to, and for a pod without
// a controller those whose selector matches it. It must see every change of a pod, in order: Claim relies on it.
func (p *Pods[O]) Keys(ch control.Change) []control.Key {
	p.orphans.Saw(ch)
	var keys []control.Key
	for _, obj := range []kube.Object{ch.Old, ch.New} {
		if obj == nil {
			continue
		}
		if ref := metav1.GetControllerOfNoCopy(obj); ref != nil {
			if ref.Kind == p.cfg.Kind.Kind {
				keys = append(keys, control.Key{Namespace: obj.GetNamespace(), Name: ref.Name})
			}
			continue
		}
		if obj == ch.New || p.cfg.Named != nil { // the name of one that is gone is free
			keys = append(keys, p.selecting(obj)...)
		}
	}
	return keys
}

// selecting returns the owners that would adopt a pod, or whose own pod it is in the way of.
func (p *Pods[O]) selecting(pod kube.Object) (keys []control.Key) {
	for _, owner := range control.List[O](p.cfg.Client, p.cfg.Kind, pod.GetNamespace()) {
		if p.cfg.Named != nil {
			if p.cfg.Named(owner, pod.(*corev1.Pod)) {
				keys = append(keys, control.KeyOf(owner))
			}
			continue
		}
		s, err := metav1.LabelSelectorAsSelector(p.cfg.Selector(owner))
		if err == nil && !s.Empty() && s.Matches(labels.Set(pod.GetLabels())) {
			keys = append(keys, control.KeyOf(owner))
		}
	}
	return keys
}

// Forget drops what is kept about an owner that is gone.
func (p *Pods[O]) Forget(owner control.Key) {
	p.refused.forget(owner)
	p.gathered.Forget(owner)
}

// Gather returns how long an owner's changes are to be gathered for after the last Claim; 0: reconcile it now.
func (p *Pods[O]) Gather(owner O, now time.Time) time.Duration { return p.gathered.Wait(owner, now) }

// Claim returns the owner's pods, after it has released the active ones that its selector no longer matches and adopted those
// without a controller that it matches. With a Finalizer this holds for ended ones too.
func (p *Pods[O]) Claim(ctx context.Context, owner O) (Claimed, error) {
	selector, err := metav1.LabelSelectorAsSelector(p.cfg.Selector(owner))
	if err != nil {
		return Claimed{}, fmt.Errorf("%s %s: selector: %w", strings.ToLower(p.cfg.Kind.Kind), control.KeyOf(owner), err)
	}
	c := divide(owner, control.Index[*corev1.Pod](p.cfg.Client, kube.Pod, control.OwnerIndex, string(owner.GetUID())))
	p.gathered.Done(owner, len(c.Active)+len(c.Ending)+len(c.Ended), time.Now())
	claimed := c.Active
	if p.cfg.Finalizer != "" {
		claimed = slices.Concat(c.Active, c.Ended)
	}
	var owned, orphans []kube.Object
	for _, pod := range claimed {
		owned = append(owned, pod)
	}
	for _, obj := range p.orphans.In(owner.GetNamespace()) {
		pod := obj.(*corev1.Pod)
		if p.adoptable(owner, pod) {
			orphans = append(orphans, obj)
		}
	}
	mine, err := control.ClaimTracked(ctx, p.cfg.Client, owner, p.cfg.Kind, selector, p.cfg.Finalizer, owned, orphans)
	c.Active = nil
	if p.cfg.Finalizer != "" {
		c.Ended = nil
	}
	for _, obj := range mine {
		if pod := obj.(*corev1.Pod); control.PodFinished(pod) {
			c.Ended = append(c.Ended, pod)
		} else {
			c.Active = append(c.Active, pod)
		}
	}
	return c, err
}

// adoptable reports whether the owner may adopt a pod that its selector matches.
func (p *Pods[O]) adoptable(owner O, pod *corev1.Pod) bool {
	switch {
	case p.cfg.Named != nil:
		return p.cfg.Named(owner, pod)
	case p.cfg.Finalizer != "":
		return true // its end counts
	}
	return control.PodActive(pod)
}

// Create makes n pods, pod(0) to pod(n-1), slowly at first. While a refusal holds it makes none and returns the refusal.
// In a namespace that is being deleted it makes none either, which is no error: everything in it is about to be deleted.
func (p *Pods[O]) Create(ctx context.Context, owner O, n int, now time.Time, pod func(i int) *corev1.Pod) error {
	key, generation := control.KeyOf(owner), owner.GetGeneration()
	if _, err := p.refused.standing(key, generation, now); err != nil {
		return err // pods come and go meanwhile, and each change queues the owner
	}
	err := slowStart(n, func(i int) error {
		wanted := pod(i)
		made, err := p.cfg.Client.Create(ctx, wanted)
		switch {
		case err == nil:
			p.report(owner, "create", made.GetName(), nil)
		case !namespaceEnds(err):
			p.report(owner, "create", wanted.Name, err)
		}
		return err
	})
	if namespaceEnds(err) {
		err = nil
	}
	p.refused.note(key, generation, err, now)
	return err
}

func namespaceEnds(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// RefusedFor returns how long a refusal still keeps Create from making pods for the owner; 0 when none does.
func (p *Pods[O]) RefusedFor(owner O, now time.Time) time.Duration {
	wait, _ := p.refused.standing(control.KeyOf(owner), owner.GetGeneration(), now)
	return wait
}

// Delete deletes the pods, each only if it is still the one that the cache showed. One that is gone is no error.
func (p *Pods[O]) Delete(ctx context.Context, owner O, pods []*corev1.Pod) error {
	return control.InParallel(len(pods), func(i int) error {
		pod := pods[i]
		err := p.cfg.Client.Delete(ctx, kube.Pod, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // gone already, or another pod of that name by now
		}
		p.report(owner, "delete", pod.Name, err)
		return err
	})
}

// report records what became of a pod as an event of the owner: SuccessfulCreate, FailedCreate, SuccessfulDelete, FailedDelete.
func (p *Pods[O]) report(owner O, verb, pod string, err error) {
	kind, reason := corev1.EventTypeNormal, "Successful"
	if err != nil {
		kind, reason = corev1.EventTypeWarning, "Failed"
	}
	past := map[string][2]string{"create": {"Create", "Creat"}, "delete": {"Delete", "Delet"}}[verb]
	var text string
	switch {
	case p.cfg.Report != nil:
		text = p.cfg.Report(owner, verb, pod, err)
	case err != nil:
		text = fmt.Sprintf("Error %sing: %v", strings.ToLower(past[1]), err)
	default:
		text = fmt.Sprintf("%sed pod: %s", past[1], pod)
	}
	p.cfg.Events.Event(owner, kind, reason+past[0], "%s", text)
}
