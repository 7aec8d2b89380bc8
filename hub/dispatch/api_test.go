package dispatch

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

// What the API itself says of a bad status names the fields in such a way that the rest of it can be taken.
func TestTheAPIRefusesNoStatusWhole(t *testing.T) {
	c := registrytest.New(t).Client()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	add := func(o kube.Object) kube.Object {
		t.Helper()
		made, err := c.Create(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	add(&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	add(&corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	p := add(&corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}).(*corev1.Pod)
	in := newIntake(c, wire.Settings{}, slog.New(slog.DiscardHandler))
	go func() { _ = in.run(ctx) }()
	r := &reporters{t: t}
	for _, bad := range []string{
		`"qosClass":"Guaranteed"`, `"hostIPs":[{"ip":"192.168.7.1"},{"ip":"10.0.0.300"}]`, `"phase":17`,
		`"containerStatuses":[{"name":"c","resources":{"limits":{"cpu":"-1"}}}]`, `"nominatedNodeName":"other"`,
		`"conditions":[{"type":"a b","status":"True"}]`,
	} {
		message := "with " + strings.ReplaceAll(bad, `"`, "'")
		status := `{"message":"` + message + `","reason":"R",` + bad + `}`
		done := make(chan struct{})
		in.add(job{device: "d", node: "n1", batch: &wire.Batch{Puts: []wire.Put{
			r.put(wire.KindPodStatus, string(p.UID), "p", wire.PodReport{Namespace: "default", Name: "p", Status: []byte(status)})}}, done: func() { close(done) }})
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatalf("%s: never answered", bad)
		}
		within(t, "the rest of "+bad+" is taken", func() bool {
			o, ok := c.Get(kube.Pod, "default", "p")
			return ok && o.(*corev1.Pod).Status.Message == message
		})
	}
	if o, _ := c.Get(kube.Pod, "default", "p"); o.(*corev1.Pod).Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("qosClass is %s now", o.(*corev1.Pod).Status.QOSClass)
	}
	if _, ok := c.Get(kube.Node, "", "n1"); !ok {
		t.Error("no node")
	}
}
