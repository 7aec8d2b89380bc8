package edgeagent

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/internal/wire"
)

// shelf is an image store: platforms by name, "local" first when imported.
type shelf map[string][]string

func (s shelf) Platforms(_ context.Context, ref string) ([]string, bool, error) {
	list, ok := s[ref]
	if !ok {
		return nil, false, cruntime.ErrNotFound
	}
	if len(list) > 0 && list[0] == "local" {
		return list[1:], false, nil
	}
	return list, true, nil
}

func TestImagePlatforms(t *testing.T) {
	ctx := t.Context()
	store, reported := shelf{"here:1": {"amd64", "arm64"}, "imported:1": {"local", "amd64"}, "mute:1": {}}, map[string]string{}
	k := newImagePlatforms(store, func(o wire.Object) error {
		reported[o.UID] = string(o.Data)
		return nil
	}, func(id wire.ID) error {
		delete(reported, id.UID)
		return nil
	})
	pods := func(images ...string) *desired.Set {
		s := desired.Decode(nil, nil, slog.New(slog.DiscardHandler))
		for i, image := range images {
			p := &corev1.Pod{}
			p.Spec.Containers = []corev1.Container{{Name: "c", Image: image}}
			s.Pods[fmt.Sprint(i)] = p
		}
		return s
	}
	want := func(what string, want map[string]string) {
		t.Helper()
		if diff := cmp.Diff(want, reported); diff != "" {
			t.Errorf("%s (-want +reported):\n%s", what, diff)
		}
	}
	here, imported := `{"platforms":["amd64","arm64"]}`, `{"platforms":["amd64"],"local":true}`

	k.inspect(ctx, k.want(pods("here:1", "imported:1", "mute:1", "foreign:1")))
	want("what is here", map[string]string{"here:1": here, "imported:1": imported})

	refusal := &cruntime.PlatformError{Image: "foreign:1", Have: []string{"arm/v7"}, Machine: "amd64"}
	k.pullEnded(ctx, "foreign:1", refusal)
	k.pullEnded(ctx, "mute:1", cruntime.ErrUnreachable)
	k.pullEnded(ctx, "nobody-asked:1", refusal)
	want("what a pull found", map[string]string{"here:1": here, "imported:1": imported, "foreign:1": `{"platforms":["arm/v7"]}`})

	// A pull is newer than what was here; an inspection that comes late is not newer than a pull.
	unreported := k.want(pods("late:1", "here:1"))
	store["late:1"] = []string{"amd64"}
	k.pullEnded(ctx, "late:1", &cruntime.PlatformError{Have: []string{"arm64"}})
	k.inspect(ctx, unreported)
	store["here:1"] = []string{"amd64"}
	k.inspect(ctx, k.want(pods("late:1", "here:1")))
	want("late", map[string]string{"here:1": here, "late:1": `{"platforms":["arm64"]}`})
	k.pullEnded(ctx, "here:1", nil)
	want("the tag has moved", map[string]string{"here:1": `{"platforms":["amd64"]}`, "late:1": `{"platforms":["arm64"]}`})

	mounting := pods("here:1")
	mounting.Pods["0"].Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "imported:1"}}}}
	k.inspect(ctx, k.want(mounting))
	want("an image that is a volume", map[string]string{"here:1": `{"platforms":["amd64"]}`, "imported:1": imported})

	k.inspect(ctx, k.want(pods()))
	want("no pods", map[string]string{})

	var many []string
	for i := range 2 * maxImageReports {
		name := fmt.Sprint("many:", i)
		store[name] = []string{"amd64"}
		many = append(many, name)
	}
	k.inspect(ctx, k.want(pods(many...)))
	if len(reported) != maxImageReports {
		t.Errorf("%d images are reported", len(reported))
	}
	k.inspect(ctx, k.want(pods(many[maxImageReports:]...)))
	if len(reported) != maxImageReports {
		t.Errorf("then of %d", len(reported))
	}
}
