package replicationcontroller

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/hub/control/replicaset"
	"petrel.dev/petrel/internal/kube"
)

func web(n int32) *corev1.ReplicationController {
	l := map[string]string{"app": "web"}
	return &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Generation: 1},
		Spec: corev1.ReplicationControllerSpec{Replicas: &n, Selector: l,
			Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}}},
	}
}

func start(t *testing.T, c *controltest.Client) *controltest.Events {
	ev := &controltest.Events{}
	ctl := New(replicaset.Config{Client: c, Events: ev})
	go func() { _ = ctl.Run(t.Context()) }()
	synctest.Wait()
	return ev
}

func active(c *controltest.Client) (pods []*corev1.Pod) {
	for _, o := range c.Stored(kube.Pod, "") {
		if p := o.(*corev1.Pod); control.PodActive(p) {
			pods = append(pods, p)
		}
	}
	return pods
}

func stored(t *testing.T, c *controltest.Client) *corev1.ReplicationController {
	rc, ok := control.Get[*corev1.ReplicationController](c, kube.ReplicationController, "default", "web")
	if !ok {
		t.Fatal("no ReplicationController")
	}
	return rc
}

// TestKeepsItsPods tells a controller's life: its pods are made, counted, adopted and deleted, and then nothing is written.
func TestKeepsItsPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stray := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "stray", Labels: map[string]string{"app": "web"}}}
		c := controltest.New(t, web(3), stray)
		start(t, c)
		pods := active(c)
		if len(pods) != 3 {
			t.Fatalf("%d pods, want 3", len(pods))
		}
		for _, p := range pods {
			ref := metav1.GetControllerOf(p)
			if ref == nil || ref.Kind != "ReplicationController" || ref.APIVersion != "v1" || ref.UID != stored(t, c).UID {
				t.Errorf("%s belongs to %+v", p.Name, ref)
			}
			p = p.DeepCopy()
			p.Spec.NodeName, p.Status.Phase = "n1", corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			c.Put(p)
		}
		synctest.Wait()
		if s := stored(t, c).Status; s.Replicas != 3 || s.FullyLabeledReplicas != 3 || s.ReadyReplicas != 3 || s.AvailableReplicas != 3 || s.ObservedGeneration != 1 {
			t.Errorf("status: %+v", s)
		}
		one := int32(1)
		rc := stored(t, c).DeepCopy()
		rc.Spec.Replicas = &one
		if _, err := c.Update(t.Context(), rc, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(active(c)); n != 1 || stored(t, c).Status.Replicas != 1 {
			t.Errorf("%d pods after scaling down, status %+v", n, stored(t, c).Status)
		}
		c.Writes()
		time.Sleep(24 * time.Hour)
		if w := c.Writes(); len(w) != 0 {
			t.Errorf("an idle controller wrote %q", w)
		}
	})
}

// TestFailureIsReported checks that a refusal is a condition, which goes when the pods can be made.
func TestFailureIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		quota := true
		c.Refuse = func(verb string, o kube.Object, _ string) error {
			if _, ok := o.(*corev1.Pod); ok && verb == "create" && quota {
				return errors.New("exceeded quota")
			}
			return nil
		}
		start(t, c)
		c.Put(web(3))
		synctest.Wait()
		conds := stored(t, c).Status.Conditions
		if len(conds) != 1 || conds[0].Type != corev1.ReplicationControllerReplicaFailure || conds[0].Reason != "FailedCreate" || conds[0].Message != "exceeded quota" {
			t.Errorf("conditions: %+v", conds)
		}
		quota = false
		time.Sleep(10 * time.Minute)
		if s := stored(t, c).Status; s.Replicas != 3 || len(s.Conditions) != 0 {
			t.Errorf("healed: %+v", s)
		}
	})
}

// TestStatusOfAnotherWriter puts a status right that another client has written.
func TestStatusOfAnotherWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t, web(2))
		start(t, c)
		wrong := stored(t, c).DeepCopy()
		wrong.Status.Replicas = 7
		if _, err := c.Update(t.Context(), wrong, "status"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := stored(t, c).Status.Replicas; n != 2 {
			t.Errorf("status says %d replicas, want 2", n)
		}
	})
}
