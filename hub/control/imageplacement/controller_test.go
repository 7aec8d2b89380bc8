package imageplacement

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

// reports stands for the image reports of nodes.
type reports struct {
	architectures func(string, []string)
	where         func(string, string, bool)
}

func (r *reports) Subscribe(_ context.Context, saw func(string, []string)) { r.architectures = saw }

func (r *reports) SubscribeNodes(_ context.Context, saw func(string, string, bool)) { r.where = saw }

// world is a fleet with a controller: the nodes pi (arm64) and pc (amd64), and the pod web of a ReplicaSet that waits on pc for the image app.
type world struct {
	*controltest.Client
	t      *testing.T
	events controltest.Events
	reports
	pi, pc *corev1.Node
	owner  *appsv1.ReplicaSet
	pod    *corev1.Pod
}

func node(name, arch string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelArchStable: arch, corev1.LabelHostname: name}}}
}

func ownedBy(kind, name, uid string) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: types.UID(uid), Controller: new(true)}}
}

func newWorld(t *testing.T) *world {
	w := &world{Client: controltest.New(t), t: t, pi: node("pi", "arm64"), pc: node("pc", "amd64")}
	w.owner = &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "owner"}}
	w.pod = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", OwnerReferences: ownedBy("ReplicaSet", "web", "owner")},
		Spec:       corev1.PodSpec{NodeName: "pc", Containers: []corev1.Container{{Name: "main", Image: "app"}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}},
		}}},
	}
	return w
}

// start stores the objects and runs the controller.
func (w *world) start() {
	w.Put(w.pi)
	w.Put(w.pc)
	w.Put(w.owner)
	w.Put(w.pod)
	c := New(Config{Client: w.Client, Events: &w.events, Images: &w.reports})
	go func() { _ = c.Run(w.t.Context()) }()
	synctest.Wait()
}

// left returns the names of the pods that nobody has deleted: its node ends a pod that is.
func (w *world) left() string {
	synctest.Wait()
	var out []string
	for _, p := range w.Stored(kube.Pod, "default") {
		if p.GetDeletionTimestamp() == nil {
			out = append(out, p.GetName())
		}
	}
	return strings.Join(out, " ")
}

func (w *world) want(pods, when string) {
	w.t.Helper()
	if got := w.left(); got != pods {
		w.t.Errorf("%s: pods %q, want %q", when, got, pods)
	}
}

// TestMoves checks that a pod goes when its node has reported that the image exists only for another one's architecture, in whatever order that
// becomes known, and not before.
func TestMoves(t *testing.T) {
	pods := map[string]func(w *world){
		"known":    func(w *world) { w.architectures("app", []string{"arm64"}) },
		"reported": func(w *world) { w.where("app", "pc", true) },
		"waits": func(w *world) {
			w.pod.Status.ContainerStatuses[0].State.Waiting.Reason = "ImagePullBackOff"
			w.Put(w.pod)
		},
		"node": func(w *world) {
			w.pi.Spec.Unschedulable, w.pi.Spec.Taints = false, nil
			w.Put(w.pi)
		},
	}
	for _, order := range []string{"known reported waits node", "node waits reported known", "waits known node reported", "reported node known waits"} {
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.pod.Status.ContainerStatuses[0].State.Waiting.Reason = "ContainerCreating"
				w.pi.Spec.Unschedulable = true
				w.pi.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
				w.start()
				steps := strings.Fields(order)
				for i, step := range steps {
					w.want("web-1", fmt.Sprintf("before %s", steps[i:]))
					pods[step](w)
				}
				w.want("", "in the end")
				if got, want := fmt.Sprint(w.events.Take()), "[Normal ImageNotForArchitecture Pod/web-1: Deleting pod, which cannot start on node pc: image app does not exist for its architecture; its controller makes another one, which node pi could run]"; got != want {
					t.Errorf("event %s, want %s", got, want)
				}
				if got := fmt.Sprint(w.Writes()); !strings.Contains(got, "update Pod default/web-1 status") {
					t.Errorf("its status has no reason: %s", got)
				}
			})
		})
	}
}

// TestStays has what keeps a pod where it is, each beside the same pod that goes.
func TestStays(t *testing.T) {
	job := func(limit int32) *batchv1.Job {
		return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "job"}, Spec: batchv1.JobSpec{BackoffLimit: &limit}}
	}
	ofJob := func(w *world) { w.pod.OwnerReferences = ownedBy("Job", "web", "job") }
	for why, c := range map[string]struct {
		edit func(w *world)
		goes bool
	}{
		"nothing is special":          {func(*world) {}, true},
		"no controller":               {func(w *world) { w.pod.OwnerReferences = nil }, false},
		"another owner of that name":  {func(w *world) { w.owner.UID = "other" }, false},
		"a DaemonSet":                 {func(w *world) { w.pod.OwnerReferences[0].Kind = "DaemonSet" }, false},
		"the template names the node": {func(w *world) { w.owner.Spec.Template.Spec.NodeName = "pc" }, false},
		"it selects this node":        {func(w *world) { w.pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "pc"} }, false},
		"it selects the other":        {func(w *world) { w.pod.Spec.NodeSelector = map[string]string{corev1.LabelArchStable: "arm64"} }, true},
		"the other has the same":      {func(w *world) { w.pi.Labels[corev1.LabelArchStable] = "amd64" }, false},
		"the other is cordoned": {func(w *world) {
			w.pi.Spec.Unschedulable = true
			w.pi.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
		}, false},
		"its owner says otherwise":    {func(w *world) { w.pod.Annotations = map[string]string{kube.ArchitecturesAnnotation: "amd64"} }, false},
		"it has run":                  {func(w *world) { w.pod.Status.Phase = corev1.PodRunning }, false},
		"it has no node":              {func(w *world) { w.pod.Spec.NodeName = "" }, false},
		"it waits for something else": {func(w *world) { w.pod.Status.ContainerStatuses[0].State.Waiting.Reason = "CreateContainerConfigError" }, false},
		"its image is here":           {func(w *world) { w.pod.Spec.Containers[0].Image = "other" }, false},
		"a Job that may fail once":    {func(w *world) { ofJob(w); w.Put(job(1)) }, true},
		"a Job that may not fail":     {func(w *world) { ofJob(w); w.Put(job(0)) }, false},
		"an init container's image": {func(w *world) {
			w.pod.Spec.InitContainers, w.pod.Spec.Containers[0].Image = w.pod.Spec.Containers, "other"
			w.pod.Spec.InitContainers = []corev1.Container{{Name: "first", Image: "app"}}
		}, true},
		"it has a claim": {func(w *world) {
			w.pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
		}, false},
	} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c.edit(w)
				w.start()
				w.architectures("app", []string{"arm64"})
				w.where("app", "pc", true)
				if got := w.left() == ""; got != c.goes {
					t.Errorf("it goes: %v", got)
				}
			})
		})
	}
}

// TestOthersReports checks that pods stay on a node that has not itself looked at their image, and when a report ends.
func TestOthersReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		w.where("app", "pi", true)
		w.architectures("app", []string{"arm64"})
		w.want("web-1", "reported by another node")
		w.architectures("app", nil)
		w.where("app", "pi", false)
		w.where("app", "pc", true)
		w.want("web-1", "nothing is known")
		w.where("app", "pc", false)
		w.architectures("app", []string{"arm64"})
		w.want("web-1", "the node's own report has ended")
		w.where("app", "pc", true)
		w.want("", "all is known")
	})
}

// TestArchitectureComesLater checks that a pod goes when a node without a label reports its architecture.
func TestArchitectureComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		delete(w.pc.Labels, corev1.LabelArchStable)
		w.start()
		w.architectures("app", []string{"arm64"})
		w.where("app", "pc", true)
		w.want("web-1", "the node may have the right one")
		w.pc = w.pc.DeepCopy()
		w.pc.Status.NodeInfo.Architecture = "amd64"
		w.Put(w.pc)
		w.want("", "it has another")
	})
}
