package quota_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	controller "petrel.dev/petrel/hub/control/quota"
	"petrel.dev/petrel/hub/quota"
	"petrel.dev/petrel/internal/kube"
)

// The status follows what there is, at most once a second; limits are shown at once; a kind that is served later is counted then.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := controltest.New(t)
		served := map[schema.GroupResource]kube.GVK{corev1.Resource("pods"): kube.Pod}
		ledger := quota.NewLedger(c, func(gr schema.GroupResource) (kube.GVK, bool) { gvk, ok := served[gr]; return gvk, ok })
		kinds := controltest.NewKinds()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- controller.New(controller.Config{Client: c, Ledger: ledger, Kinds: kinds}).Run(ctx) }()
		defer func() {
			ledger.Forget(types.NamespacedName{Namespace: "ns", Name: "q"})
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		want := func(hard, used string) {
			t.Helper()
			synctest.Wait()
			q, _ := control.Get[*corev1.ResourceQuota](c, kube.ResourceQuota, "ns", "q")
			if h, u := quota.Text(q.Status.Hard), quota.Text(q.Status.Used); h != hard || u != used {
				t.Errorf("status hard %s, used %s; want %s, %s", h, u, hard, used)
			}
		}
		q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "q", UID: "q"}, Spec: corev1.ResourceQuotaSpec{
			Hard: corev1.ResourceList{"pods": resource.MustParse("20"), "configmaps": resource.MustParse("1")}}}
		c.Put(q)
		want("configmaps=1,pods=20", "pods=0")
		c.Writes()
		for i := range 10 {
			c.Put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint("p", i), UID: types.UID(fmt.Sprint(i))}})
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Second)
		want("configmaps=1,pods=20", "pods=10")
		if w := c.Writes(); len(w) > 2 {
			t.Errorf("%d writes in a second: %q", len(w), w)
		}

		got, _ := control.Get[*corev1.ResourceQuota](c, kube.ResourceQuota, "ns", "q")
		up := got.DeepCopy()
		up.Spec.Hard["pods"] = resource.MustParse("30")
		c.Put(up)
		want("configmaps=1,pods=30", "pods=10")

		served[corev1.Resource("configmaps")] = kube.ConfigMap
		kinds.Set(control.StoredKind{GVK: kube.ConfigMap, Plural: "configmaps", Namespaced: true})
		time.Sleep(time.Second)
		want("configmaps=1,pods=30", "configmaps=0,pods=10")
		c.Writes()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if w := c.Writes(); len(w) > 0 {
			t.Errorf("written while nothing happened: %q", w)
		}
	})
}
