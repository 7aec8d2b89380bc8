package prefetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// fetch asks the node once. final is whether an error is the node's answer; otherwise the node could not be asked, which says nothing of the
// images and is tried again.
func (f *Fetcher) fetch(ctx context.Context, e *entry) (err error, final bool) {
	body, err := json.Marshal(e.request())
	if err != nil {
		return err, true
	}
	if len(body) > kube.MaxImageFetch {
		return fmt.Errorf("the pull secrets and images are larger than %d bytes", kube.MaxImageFetch), true
	}
	s, err := f.cfg.Nodes.OpenStream(ctx, e.node, wire.StreamRequest{Kind: wire.StreamFetch})
	if err != nil {
		return err, false
	}
	defer func() { _ = s.Close(wire.StreamEnd{}) }()
	if err := s.Send(ctx, wire.ChannelStdin, body); err == nil {
		_ = s.CloseSend(ctx, wire.ChannelStdin) // the end of the stream says what went wrong
	}
	for {
		_, _, err := s.Recv(ctx)
		if err == nil {
			continue
		}
		var end *wire.StreamEnd
		switch {
		case !errors.As(err, &end):
			return err, false
		case end.Reason == "":
			return nil, true
		case end.Reason == string(metav1.StatusReasonNotFound), end.Reason == string(metav1.StatusReasonBadRequest):
			return nil, true // an agent that cannot fetch ahead
		}
		return end, true
	}
}

// request is what a pod of a namespace needs: images, pull policies, and the pull secrets that admission would give it.
func request(objects control.Reader, namespace string, spec *corev1.PodSpec) (out kube.ImageFetch) {
	out.Pod.Namespace = namespace
	slim := func(list []corev1.Container) (out []corev1.Container) {
		for _, c := range list {
			out = append(out, corev1.Container{Name: c.Name, Image: c.Image, ImagePullPolicy: c.ImagePullPolicy})
		}
		return out
	}
	out.Pod.Spec.InitContainers, out.Pod.Spec.Containers = slim(spec.InitContainers), slim(spec.Containers)
	for _, v := range spec.Volumes {
		if v.Image != nil {
			out.Pod.Spec.Volumes = append(out.Pod.Spec.Volumes, v)
		}
	}
	out.Pod.Spec.ImagePullSecrets = spec.ImagePullSecrets
	if len(out.Pod.Spec.ImagePullSecrets) == 0 {
		account := spec.ServiceAccountName
		if account == "" {
			account = "default"
		}
		if sa, ok := control.Get[*corev1.ServiceAccount](objects, kube.ServiceAccount, namespace, account); ok {
			out.Pod.Spec.ImagePullSecrets = sa.ImagePullSecrets
		}
	}
	for _, ref := range out.Pod.Spec.ImagePullSecrets {
		if s, ok := control.Get[*corev1.Secret](objects, kube.Secret, namespace, ref.Name); ok {
			out.Secrets = append(out.Secrets, corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.Name}, Type: s.Type, Data: s.Data})
		}
	}
	return out
}
