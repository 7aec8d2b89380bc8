package serviceaccount

import (
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/controltest"
	"petrel.dev/petrel/internal/kube"
)

func TestNamespacesGetAccountAndCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := metav1.Now()
		ending := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ending", DeletionTimestamp: &now}}
		c := controltest.New(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "old"}}, ending)
		ctl := New(Config{Client: c, CA: []byte("PEM")})
		go func() { _ = ctl.Run(t.Context()) }()
		synctest.Wait()
		c.Writes()
		c.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "new"}})
		synctest.Wait()
		// Pods may come as soon as there is an account, and they mount the CA.
		if w := c.Writes(); len(w) != 2 || !strings.Contains(w[0], "kube-root-ca.crt") {
			t.Errorf("a new namespace gets %q", w)
		}
		check := func(ns string, want bool) {
			t.Helper()
			_, sa := c.Get(kube.ServiceAccount, ns, "default")
			cm, ok := control.Get[*corev1.ConfigMap](c, kube.ConfigMap, ns, "kube-root-ca.crt")
			if sa != want || ok != want || want && cm.Data["ca.crt"] != "PEM" {
				t.Errorf("namespace %s: account %v, CA %v, want both %v", ns, sa, cm, want)
			}
		}
		check("old", true)
		check("new", true)
		check("ending", false)

		c.Remove(kube.ServiceAccount, "new", "default")
		c.Put(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "new", Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": "edited", "more": "x"}})
		synctest.Wait()
		check("new", true)
		if cm, _ := control.Get[*corev1.ConfigMap](c, kube.ConfigMap, "new", "kube-root-ca.crt"); len(cm.Data) != 1 {
			t.Errorf("edited ConfigMap: %v", cm.Data)
		}
	})
}
