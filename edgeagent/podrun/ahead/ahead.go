// Package ahead brings the images of pods that are to come to the node, when the hub asks for them: the pod that serves now goes only once
// its successor need not wait for the link.
package ahead

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// givenSecrets are the pull secrets that came with a request: the set of the node has them only once the pod is in it.
type givenSecrets []corev1.Secret

// Secret implements pull.Secrets.
func (g givenSecrets) Secret(namespace, name string) *corev1.Secret {
	i := slices.IndexFunc(g, func(s corev1.Secret) bool { return s.Namespace == namespace && s.Name == name })
	if i < 0 {
		return nil
	}
	return &g[i]
}

// Puller is what brings images; pull.Puller is one.
type Puller interface {
	Fetch(ctx context.Context, r pull.Request) pull.Failure
}

// Serve brings the images of one request, in the slots of all pulls, and closes the stream when they are there. When the stream breaks off the
// pull ends, and the next one goes on with what has come.
func Serve(ctx context.Context, pulls Puller, log *slog.Logger, s wire.Stream) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := wire.StreamEnd{}
	if err := contain.Do(log, "podrun/ahead", "fetch", func() error { return fetch(ctx, cancel, pulls, log, s) }); err != nil {
		end = wire.StreamEnd{Reason: "ServiceUnavailable", Message: err.Error()}
	}
	if err := s.Close(end); err != nil && ctx.Err() == nil {
		log.Debug("stream not closed", "kind", wire.StreamFetch, "error", err)
	}
}

func fetch(ctx context.Context, cancel context.CancelFunc, pulls Puller, log *slog.Logger, s wire.Stream) error {
	req, err := read(ctx, s)
	if err != nil {
		return err
	}
	go watch(ctx, cancel, s)
	turn := pull.NewTurn()
	for _, r := range images(&req.Pod) {
		if pull.Policy(r.Image, r.Policy) == corev1.PullNever {
			continue // the pod finds out
		}
		r.Secrets, r.Turn = givenSecrets(req.Secrets), turn
		r.Event = func(kind, reason, format string, args ...any) {
			log.Info("image ahead of its pod", "image", r.Image, "reason", reason, "message", fmt.Sprintf(format, args...))
		}
		f := pulls.Fetch(ctx, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if f.Reason != "" {
			return errors.New(f.Message)
		}
	}
	return nil
}

// images returns what a pod needs, in the order in which it does.
func images(pod *corev1.Pod) (list []pull.Request) {
	for _, v := range pod.Spec.Volumes {
		if v.Image != nil {
			list = append(list, pull.Request{Pod: pod, Image: v.Image.Reference, Policy: v.Image.PullPolicy, Mount: true})
		}
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		list = append(list, pull.Request{Pod: pod, Image: c.Image, Policy: c.ImagePullPolicy})
	}
	return list
}

// watch ends the pull when the hub does not want it any more, or cannot be reached.
func watch(ctx context.Context, cancel context.CancelFunc, s wire.Stream) {
	for {
		if _, _, err := s.Recv(ctx); err != nil {
			cancel()
			return
		}
	}
}

// read reads the request of a stream.
func read(ctx context.Context, s wire.Stream) (*kube.ImageFetch, error) {
	var body []byte
	for {
		ch, b, err := s.Recv(ctx)
		if err != nil {
			return nil, err
		}
		if ch != wire.ChannelStdin {
			continue
		}
		if b == nil {
			break
		}
		if len(body)+len(b) > kube.MaxImageFetch {
			return nil, fmt.Errorf("the request is larger than %d bytes", kube.MaxImageFetch)
		}
		body = append(body, b...)
	}
	var req kube.ImageFetch
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, fmt.Errorf("read request for images: %w", err)
	}
	return &req, nil
}
