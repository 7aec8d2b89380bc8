package ahead

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/edgeagent/podrun/pull"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/internal/wire/wiretest"
)

// registry has images, and is slow.
type registry struct {
	took    time.Duration
	missing string
	pulled  []string
}

func (r *registry) Fetch(ctx context.Context, q pull.Request) pull.Failure {
	login := "without login"
	if q.Secrets.Secret("ns", "login") != nil && q.Secrets.Secret("ns", "none") == nil {
		login = "with login"
	}
	if q.Mount {
		login += ", mounted"
	}
	select {
	case <-time.After(r.took):
	case <-ctx.Done():
		r.pulled = append(r.pulled, q.Image+" broken off")
		return pull.Failure{}
	}
	if q.Image == r.missing {
		return pull.Failure{Reason: "ErrImagePull", Message: "no such tag"}
	}
	r.pulled = append(r.pulled, q.Image+" "+login)
	return pull.Failure{}
}

func request() kube.ImageFetch {
	c := func(image string, p corev1.PullPolicy) corev1.Container {
		return corev1.Container{Name: "c", Image: image, ImagePullPolicy: p}
	}
	return kube.ImageFetch{
		Pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: corev1.PodSpec{InitContainers: []corev1.Container{c("init:1", "")},
			Containers: []corev1.Container{c("app:1", ""), c("mine", corev1.PullNever)},
			Volumes:    []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "data:1"}}}, {Name: "other"}}}},
		Secrets: []corev1.Secret{{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "login"}}},
	}
}

// TestServe has all images of a request pulled, one after the other, with the logins that came with it.
func TestServe(t *testing.T) {
	for name, c := range map[string]struct {
		missing string
		body    []byte
		end     string
		pulled  []string
	}{
		"all":      {pulled: []string{"data:1 with login, mounted", "init:1 with login", "app:1 with login"}},
		"one not":  {missing: "app:1", end: "no such tag", pulled: []string{"data:1 with login, mounted", "init:1 with login"}},
		"nonsense": {body: []byte("{"), end: "read request for images: unexpected end of JSON input"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub, node := wiretest.Streams()
				r := &registry{took: time.Hour, missing: c.missing}
				go Serve(t.Context(), r, slog.New(slog.DiscardHandler), node)
				body := c.body
				if body == nil {
					body, _ = json.Marshal(request())
				}
				if err := errors.Join(hub.Send(t.Context(), wire.ChannelStdin, body), hub.CloseSend(t.Context(), wire.ChannelStdin)); err != nil {
					t.Fatal(err)
				}
				_, _, err := hub.Recv(t.Context())
				var end *wire.StreamEnd
				if !errors.As(err, &end) || end.Message != c.end || !slices.Equal(r.pulled, c.pulled) {
					t.Errorf("%v, %q; want %q, %q", err, r.pulled, c.end, c.pulled)
				}
			})
		})
	}
}

// TestBrokenOff ends the pull when the hub does not wait for it any more, and refuses a request that is too large.
func TestBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, node := wiretest.Streams()
		r := &registry{took: time.Hour}
		go Serve(t.Context(), r, slog.New(slog.DiscardHandler), node)
		body, _ := json.Marshal(request())
		_ = hub.Send(t.Context(), wire.ChannelStdin, body)
		_ = hub.CloseSend(t.Context(), wire.ChannelStdin)
		synctest.Wait()
		_ = hub.Close(wire.StreamEnd{})
		synctest.Wait()
		if fmt.Sprint(r.pulled) != "[data:1 broken off]" {
			t.Errorf("%v", r.pulled)
		}
	})
}
