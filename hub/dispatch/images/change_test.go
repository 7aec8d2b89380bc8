package images

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/wire"
)

// cluster is pods that come and go, and nodes that report the images of all pods that they have seen.
type cluster struct {
	*Images
	now  time.Time
	pods map[string]*corev1.Pod
}

func newCluster() *cluster {
	c := &cluster{now: time.Unix(1e9, 0), pods: map[string]*corev1.Pod{}}
	c.Images = New(func(node, image string) bool {
		for _, p := range c.pods {
			if p.Spec.NodeName == node && Used(p, image) {
				return true
			}
		}
		return false
	})
	return c
}

// pod makes or changes a pod; without images it is deleted.
func (c *cluster) pod(name, node string, images ...string) time.Time {
	old := c.pods[name]
	delete(c.pods, name)
	var p *corev1.Pod
	if len(images) > 0 {
		p = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: node}}
		for k, image := range images {
			if k == 0 {
				p.Spec.InitContainers = []corev1.Container{{Image: image}}
			} else {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Image: image})
			}
		}
		c.pods[name] = p
	}
	return c.Change(c.now, old, p)
}

func batch(image, platform string) *wire.Batch {
	id := wire.ID{Kind: wire.KindImage, UID: image}
	if platform == "" {
		return &wire.Batch{Deletes: []wire.ID{id, {Kind: wire.KindPodStatus, UID: image}}}
	}
	return &wire.Batch{Puts: []wire.Put{
		{Object: wire.Object{ID: id, Data: fmt.Appendf(nil, `{"platforms":[%q]}`, platform)}},
		{Object: wire.Object{ID: wire.ID{Kind: wire.KindPodStatus, UID: "other"}, Data: []byte("{}")}},
	}}
}

// TestReportsFollowThePods checks that what a node's batches report counts while a pod of the node has the image, and a while
// after.
func TestReportsFollowThePods(t *testing.T) {
	c := newCluster()
	expect := func(image string, want ...string) {
		t.Helper()
		if got := c.known[image]; !slices.Equal(got, want) {
			t.Errorf("%s is known for %q, want %q", image, got, want)
		}
	}
	c.Report(c.now, "n1", batch("app:1", "arm64"))
	expect("app:1")
	if next := c.pod("web", "n1", "init:1", "app:1"); !next.IsZero() {
		t.Errorf("a new pod: Expire is wanted at %v", next)
	}
	expect("app:1", "arm64")
	c.Report(c.now, "n1", batch("init:1", "amd64"))
	expect("init:1", "amd64") // of an init container too
	expect("other")

	// A second pod with it on the same node keeps it; one on another node does not.
	c.pod("web2", "n1", "other:1", "app:1")
	c.pod("far", "n2", "other:1", "app:1")
	next := c.pod("web", "n1")
	if want := c.now.Add(linger); !next.Equal(want) {
		t.Errorf("Expire is wanted at %v, want %v", next, want)
	}
	c.now = next
	if next = c.Expire(c.now); !next.IsZero() {
		t.Errorf("something lingers until %v", next)
	}
	expect("init:1")
	expect("app:1", "arm64")

	// It moves to another image, and so does the report.
	c.pod("web2", "n1", "other:1", "app:2")
	if next = c.Report(c.now, "n1", batch("app:1", "")); !next.Equal(c.now.Add(linger)) {
		t.Errorf("cleared: Expire is wanted at %v", next)
	}
	expect("app:1", "arm64")
	c.Expire(next)
	expect("app:1")
	c.Forget(c.now, "n1")
	if len(c.reports)+len(c.count)+len(c.known) > 0 {
		t.Errorf("something is left: %v %v %v", c.reports, c.count, c.known)
	}
}

// TestSubscribeNodes checks that it is known which nodes have an image, for as long as their reports count.
func TestSubscribeNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.pod("web", "n1", "init:1", "app:1")
		c.Report(c.now, "n1", batch("app:1", "arm64"))
		var got []string
		ctx, cancel := context.WithCancel(t.Context())
		c.SubscribeNodes(ctx, func(image, node string, has bool) { got = append(got, fmt.Sprint(image, " ", node, " ", has)) })
		c.Report(c.now, "n2", batch("app:1", "arm64")) // it has no such pod
		c.pod("far", "n2", "init:1", "app:1")
		c.Report(c.now, "n2", batch("app:1", "arm64"))
		next := c.pod("web", "n1")
		c.now = next
		c.Expire(c.now)
		c.Forget(c.now, "n2")
		if want := []string{"app:1 n1 true", "app:1 n2 true", "app:1 n1 false", "app:1 n2 false"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		cancel()
		synctest.Wait()
		c.pod("web", "n1", "init:1", "app:1")
		c.Report(c.now, "n1", batch("app:1", "arm64"))
		if len(got) > 4 || len(c.located["app:1"]) != 1 {
			t.Errorf("after its end: %q, %v", got, c.located)
		}
	})
}

// TestSubscribe checks that a subscriber gets what is known, then each change, and after its end nothing.
func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		c.pod("web", "n1", "init:1", "app:1")
		c.Report(c.now, "n1", batch("app:1", "arm64"))
		var got []string
		ctx, cancel := context.WithCancel(t.Context())
		c.Subscribe(ctx, func(image string, a []string) { got = append(got, fmt.Sprint(image, a)) })
		c.Report(c.now, "n1", batch("app:1", "amd64"))
		c.Report(c.now, "n1", batch("app:1", "amd64")) // no change
		c.Forget(c.now, "n1")
		if want := []string{"app:1[arm64]", "app:1[amd64]", "app:1[]"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		cancel()
		synctest.Wait()
		c.Report(c.now, "n1", batch("app:1", "arm64"))
		if len(got) > 3 {
			t.Errorf("after its end: %q", got[3:])
		}
	})
}
