package podrun_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/podrun"
	"petrel.dev/petrel/internal/kube"
)

// mounts records what is mounted of images; fail, if set, refuses it.
type mounts struct {
	mu   sync.Mutex // guards what follows
	list []string
	fail error
}

func (m *mounts) MountImage(_ context.Context, podUID, volume, ref, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.list = append(m.list, podUID+"/"+volume+"="+ref)
	return nil
}

func (m *mounts) DropImage(context.Context, string, string) error { return nil }

func (m *mounts) refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *mounts) has(s string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.list, s)
}

// mounting is a pod whose container mounts an image.
func mounting(uid, ref string, policy corev1.PullPolicy) *corev1.Pod {
	return aPod(uid, func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: ref, PullPolicy: policy}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	})
}

// TestImageVolumes has images that are volumes pulled by their own policy, before the container that mounts them starts; what keeps one from coming
// is that container's reason. They are no images to be run: the runtime for those is not asked.
func TestImageVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, store := &mounts{}, fakeIn(t, "present:1")
		n := newNode(t, func(c *podrun.Config) { c.Volumes.Images, c.VolumeImages = at, store })
		defer func() { n.stop() }()
		n.fake.PullError = func(ref string) error { return fmt.Errorf("%s is not to be run", ref) }
		var away sync.Map
		store.PullError = func(ref string) error {
			if why, ok := away.Load(ref); ok {
				return why.(error)
			}
			return nil
		}
		away.Store("missing:1", errors.New("no such tag"))
		away.Store("present:1", fmt.Errorf("%w: no route", cruntime.ErrUnreachable))
		n.apply(true, mounting("here", "present:1", ""), mounting("comes", "new:1", corev1.PullAlways), mounting("offline", "present:1", corev1.PullAlways),
			mounting("never", "absent:1", corev1.PullNever), mounting("missing", "missing:1", ""), mounting("misnamed", "Not A Name", ""))
		for uid, image := range map[string]string{"here": "present:1", "comes": "new:1", "offline": "present:1"} {
			n.want(uid, "Running main#0 running")
			if !at.has(uid + "/data=" + image) {
				t.Errorf("%s of %s is not mounted: %v", image, uid, at.list)
			}
		}
		n.want("never", "Pending main#0 ErrImageNeverPull")
		n.want("missing", "Pending main#0 ErrImagePull")
		n.want("misnamed", "Pending main#0 InvalidImageName")
		time.Sleep(11 * time.Second)
		n.settle()
		n.want("missing", "Pending main#0 ImagePullBackOff")
		if c := kube.ContainerStatusNamed(new(n.statusOf("missing")), "main"); !strings.Contains(c.State.Waiting.Message, `Back-off pulling image "missing:1": ErrImagePull: no such tag`) {
			t.Errorf("%+v", c.State.Waiting)
		}
		away.Delete("missing:1")
		time.Sleep(21 * time.Second)
		n.settle()
		n.want("missing", "Running main#0 running")

		// One that comes by an import ends the wait for it.
		if _, err := store.Pull(t.Context(), "absent:1", nil); err != nil {
			t.Fatal(err)
		}
		n.manager.Refresh()
		n.settle()
		n.want("never", "Running main#0 running")

		// What pods mount is theirs to keep.
		if images := n.manager.Images(); !slices.Contains(images, "present:1") || !slices.Contains(images, "app:1") {
			t.Errorf("images in use: %v", images)
		}
		if images := podrun.SavedImages(n.dir); !slices.Contains(images, "missing:1") {
			t.Errorf("images in use without an agent: %v", images)
		}
	})
}

// TestImageVolumeCannotBeMounted keeps the container waiting with the reason, and asks for the image again.
func TestImageVolumeCannotBeMounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := &mounts{}
		n := newNode(t, func(c *podrun.Config) { c.Volumes.Images = at })
		defer func() { n.stop() }()
		at.refuse(errors.New("not found"))
		n.apply(true, mounting("p", "data:1", ""))
		n.want("p", "Pending main#0 CreateContainerError")
		if m := n.statusOf("p").ContainerStatuses[0].State.Waiting.Message; m != `ImageVolumeMountFailed: volume "data": not found` {
			t.Errorf("%q", m)
		}
		at.refuse(nil)
		calls := n.fake.Count("Image")
		time.Sleep(11 * time.Second)
		n.settle()
		n.want("p", "Running main#0 running")
		if n.fake.Count("Image") < calls+2 {
			t.Error("the image was not asked for again")
		}
	})
}
