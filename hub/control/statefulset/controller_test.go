package statefulset

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/revision"
	"petrel.dev/petrel/internal/kube"
)

// image returns the image of a revision.
func (w *world) image(name string) string {
	cr, ok := control.Get[*appsv1.ControllerRevision](w.c, kube.ControllerRevision, "default", name)
	if !ok {
		return "none"
	}
	t, err := revision.Template(cr)
	if err != nil {
		w.t.Fatal(err)
	}
	return t.Spec.Containers[0].Image
}

// A pod has its name as its host name, the set's Service as its domain, and the claims of its ordinal in place of volumes of that name.
func TestIdentity(t *testing.T) {
	s := web(1, "v1")
	s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
	s.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "data"}, {Name: "tmp"}}
	p := newPod(s, version{"web-abc", &s.Spec.Template}, 3)
	if p.Name != "web-3" || p.GenerateName != "" || p.Spec.Hostname != "web-3" || p.Spec.Subdomain != "nginx" {
		t.Errorf("name %q, hostname %q, subdomain %q", p.Name, p.Spec.Hostname, p.Spec.Subdomain)
	}
	for k, v := range map[string]string{"app": "web", "statefulset.kubernetes.io/pod-name": "web-3", "apps.kubernetes.io/pod-index": "3", "controller-revision-hash": "web-abc"} {
		if p.Labels[k] != v {
			t.Errorf("label %s is %q, want %q", k, p.Labels[k], v)
		}
	}
	if v := p.Spec.Volumes; len(v) != 2 || v[0].PersistentVolumeClaim == nil || v[0].PersistentVolumeClaim.ClaimName != "data-web-3" || v[1].Name != "tmp" {
		t.Errorf("volumes %+v", v)
	}
	for name, want := range map[string]bool{"web-0": true, "web-12": true, "web-01": false, "web-": false, "web--1": false, "web-x": false, "other-1": false, "web-1-1": false} {
		if _, ok := ordinal(s, name); ok != want {
			t.Errorf("%s is a name of web: %v", name, ok)
		}
	}
}

// A pod of the set's name and labels is adopted and gets its labels; one that no longer matches is released, and its name is taken until it
// is gone.
func TestAdoptsAndReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := func(name string) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
				Spec:   corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "v1"}}},
				Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
		}
		s := web(1, "v1")
		s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
		w := newWorld(t, pod("web-0"), pod("stranger"), s)
		get := func(name string) *corev1.Pod {
			p, _ := control.Get[*corev1.Pod](w.c, kube.Pod, "default", name)
			return p.DeepCopy()
		}
		if p := get("web-0"); !metav1.IsControlledBy(p, w.stored()) || p.Labels["statefulset.kubernetes.io/pod-name"] != "web-0" {
			t.Errorf("web-0: %+v", p.ObjectMeta)
		}
		if p := get("stranger"); len(p.OwnerReferences) != 0 {
			t.Error("a pod with another name has been adopted")
		}
		p := get("web-0")
		p.Labels["app"] = "debug"
		if _, err := w.c.Update(t.Context(), p, ""); err != nil {
			t.Fatal(err)
		}
		w.settle()
		if p := get("web-0"); len(p.OwnerReferences) != 0 {
			t.Error("not released")
		}
		time.Sleep(time.Hour)
		w.c.Remove(kube.Pod, "default", "web-0")
		w.settle()
		if p := get("web-0"); !metav1.IsControlledBy(p, w.stored()) {
			t.Error("the name is free, and no pod has been made")
		}
	})
}

// An idle day costs no write.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, web(3, "v1"))
		w.untilStill()
		w.c.Writes()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got := w.c.Writes(); len(got) > 0 {
			t.Errorf("writes: %q", got)
		}
	})
}

// Whatever is changed and deleted meanwhile, in order or in parallel and on a cache that lags, the set ends with the pods that it wants, all of
// the last template.
func TestConvergesOnALaggingCache(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			s := web(3, "v1")
			if rapid.Bool().Draw(r, "parallel") {
				s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
			}
			if n := rapid.IntRange(0, 3).Draw(r, "maxUnavailable"); n > 0 {
				s.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromInt(n))
			}
			w := newWorld(t, s)
			for range rapid.IntRange(5, 25).Draw(r, "steps") {
				w.c.Lag(rapid.Bool().Draw(r, "lag"))
				switch rapid.IntRange(0, 4).Draw(r, "what") {
				case 0:
					w.turnStored()
				case 1:
					n := rapid.Int32Range(0, 4).Draw(r, "replicas")
					up := w.c.Stored(kube.StatefulSet, "")[0].DeepCopyObject().(*appsv1.StatefulSet)
					up.Spec.Replicas = &n
					up.Spec.Template.Spec.Containers[0].Image = rapid.SampledFrom([]string{"v1", "v2"}).Draw(r, "image")
					_, _ = w.c.Update(t.Context(), up, "")
				case 2:
					_ = w.c.Delete(t.Context(), kube.Pod, "default", fmt.Sprintf("web-%d", rapid.IntRange(0, 3).Draw(r, "pod")), metav1.DeleteOptions{})
				default:
					w.c.Step(1)
				}
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
			}
			w.c.Lag(false)
			for range 40 {
				w.settle()
				w.turnStored()
			}
			w.settle()
			want := int(*w.stored().Spec.Replicas)
			image := w.stored().Spec.Template.Spec.Containers[0].Image
			pods := w.c.Stored(kube.Pod, "")
			if len(pods) != want {
				r.Fatalf("%d pods, want %d", len(pods), want)
			}
			for _, o := range pods {
				if p := o.(*corev1.Pod); p.Spec.Containers[0].Image != image || !control.PodReady(p) {
					r.Errorf("%s has image %s, want %s", p.Name, p.Spec.Containers[0].Image, image)
				}
			}
		})
	})
}

// Whatever order pods end and become ready in, on a cache that lags too, an update never has more of them away than it may.
func TestUpdateKeepsMaxUnavailable(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			replicas, most := rapid.Int32Range(1, 7).Draw(r, "replicas"), rapid.IntRange(1, 4).Draw(r, "maxUnavailable")
			s := web(replicas, "v1")
			s.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromInt(most))
			if rapid.Bool().Draw(r, "parallel") {
				s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
			}
			w := newWorld(t, s)
			w.untilStill()
			for _, image := range []string{"v2", "v3"} { // the second comes while the first is under way, or after it
				up := w.c.Stored(kube.StatefulSet, "")[0].DeepCopyObject().(*appsv1.StatefulSet)
				up.Spec.Template.Spec.Containers[0].Image = image
				if _, err := w.c.Update(t.Context(), up, ""); err != nil {
					r.Fatal(err)
				}
				for range rapid.IntRange(1, 25).Draw(r, "steps") {
					w.c.Lag(rapid.Bool().Draw(r, "lag"))
					w.stepOne(rapid.IntRange(0, int(replicas)-1).Draw(r, "pod"))
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
					if n := w.serving(); n < int(replicas)-most {
						r.Fatalf("%d of %d pods serve, although %d may be away", n, replicas, most)
					}
				}
			}
			w.c.Lag(false)
			w.settle()
			w.untilStill()
			if got := w.stored().Status; got.UpdatedReplicas != replicas || got.AvailableReplicas != replicas {
				r.Errorf("at the end: %+v", got)
			}
		})
	})
}

// stepOne has the node of one pod end it or make it ready.
func (w *world) stepOne(i int) {
	for _, o := range w.c.Stored(kube.Pod, "") {
		if n, _ := ordinal(w.stored(), o.GetName()); n != i {
			continue
		}
		if o.GetDeletionTimestamp() != nil {
			w.c.Remove(kube.Pod, o.GetNamespace(), o.GetName())
			return
		}
		p := o.DeepCopyObject().(*corev1.Pod)
		p.Spec.NodeName, p.Status.Phase = "n1", corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		w.c.Put(p)
	}
}

// serving counts the pods that are stored, ready and not ending.
func (w *world) serving() (n int) {
	for _, o := range w.c.Stored(kube.Pod, "") {
		if p := o.(*corev1.Pod); p.DeletionTimestamp == nil && control.PodReady(p) {
			n++
		}
	}
	return n
}

// turnStored does what turn does, by what is stored.
func (w *world) turnStored() {
	for _, o := range w.c.Stored(kube.Pod, "") {
		p := o.DeepCopyObject().(*corev1.Pod)
		if p.DeletionTimestamp != nil {
			w.c.Remove(kube.Pod, p.Namespace, p.Name)
			continue
		}
		p.Spec.NodeName, p.Status.Phase = "n1", corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		w.c.Put(p)
	}
}

// Pods that are refused are named in an Event in upstream's words, and are tried again.
func TestRefusedPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, web(1, "v1"))
		c.Refuse = func(verb string, obj kube.Object, _ string) error {
			if _, ok := obj.(*corev1.Pod); ok && verb == "create" {
				return errors.New("no room")
			}
			return nil
		}
		ev := &controltest.Events{}
		ctl := New(Config{Client: c, Events: ev})
		go func() { _ = ctl.Run(t.Context()) }()
		time.Sleep(time.Second)
		synctest.Wait()
		got := ev.Take()
		if len(got) == 0 || !strings.HasPrefix(got[0], "Warning FailedCreate StatefulSet/web: Create Pod web-0 in StatefulSet web failed error: no room") {
			t.Errorf("events %q", got)
		}
		c.Refuse = nil
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(c.Stored(kube.Pod, "")) != 1 {
			t.Error("not tried again")
		}
	})
}
