package podlogs

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// list returns the sources that there are, and the version to watch from.
func (r *Request) list(ctx context.Context) ([]source, string, error) {
	l, err := r.Pods.List(ctx, metav1.ListOptions{LabelSelector: r.Selector})
	if err != nil {
		return nil, "", err
	}
	var all []source
	for i := range l.Items {
		some, err := r.sources(&l.Items[i])
		if err != nil {
			return nil, "", err
		}
		all = append(all, some...)
	}
	return sorted(all), l.GetResourceVersion(), nil
}

// sources returns the containers of a pod that have begun to run, so that there is a log. One that has not yet has none, which is no
// error; with --previous those that have run before.
func (r *Request) sources(o *unstructured.Unstructured) ([]source, error) {
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &pod); err != nil {
		return nil, err
	}
	previous := r.Query.Get("previous") == "true"
	var out []source
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			switch {
			case r.Container != "" && c.Name != r.Container:
			case previous && c.LastTerminationState.Terminated == nil:
			case c.State.Running == nil && c.State.Terminated == nil && c.LastTerminationState.Terminated == nil:
			default:
				id := c.ContainerID
				if last := c.LastTerminationState.Terminated; last != nil && c.State.Waiting != nil {
					id = last.ContainerID // while it waits to start again the log is still that one's
				}
				out = append(out, source{pod.Name, c.Name, pod.Spec.NodeName, string(pod.UID) + " " + id})
			}
		}
	}
	return out, nil
}

// watch sends the sources of each pod that is new or changes, until ctx ends or the hub refuses. A watch that ends, or a link that is
// away, is begun again with the pods that there are then.
func (r *Request) watch(ctx context.Context, version string, pods chan<- []source) error {
	send := func(s []source) {
		select {
		case pods <- s:
		case <-ctx.Done():
		}
	}
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		began := time.Now()
		err := r.watchOnce(ctx, version, send)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
			return err
		}
		if time.Since(began) > lastRetry {
			delay = firstRetry
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if found, v, err := r.list(ctx); err == nil {
			send(found)
			version = v
		}
	}
}

func (r *Request) watchOnce(ctx context.Context, version string, send func([]source)) error {
	w, err := r.Pods.Watch(ctx, metav1.ListOptions{LabelSelector: r.Selector, ResourceVersion: version})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		switch e.Type {
		case watch.Added, watch.Modified:
			o, ok := e.Object.(*unstructured.Unstructured)
			if !ok {
				return errors.New("the watch sent something that is no object")
			}
			s, err := r.sources(o)
			if err != nil {
				return err
			}
			send(s)
		case watch.Error:
			return apierrors.FromObject(e.Object)
		}
	}
	return nil
}
