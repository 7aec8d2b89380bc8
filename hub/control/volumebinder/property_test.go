package volumebinder

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Whatever users do in whatever order: no volume belongs to two claims, a claim that is bound and its volume name each other, and what
// is free fits nobody who waits.
func TestInvariants(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := newScript(t, class("slow", map[string]string{"wait": "yes"}))
			r := rand.New(rand.NewPCG(seed, 1))
			pick := func(list ...string) string { return list[r.IntN(len(list))] }
			for i := range 80 {
				switch pick("volume", "volume", "claim", "claim", "claim", "drop", "vanish", "bind") {
				case "volume":
					k := map[string]string{"size": pick("1Gi", "2Gi", "5Gi"), "modes": pick("RWO", "RWO,RWX"), "class": pick("", "", "slow")}
					if pick("y", "n", "n") == "y" {
						k["claim"] = fmt.Sprint("c", r.IntN(i+1))
					}
					w.c.Put(volume(fmt.Sprint("v", i), k))
				case "claim":
					k := map[string]string{"size": pick("1Gi", "2Gi"), "modes": pick("RWO", "RWX"), "class": pick("", "", "slow")}
					if pick("y", "n", "n") == "y" {
						k["volume"] = fmt.Sprint("v", r.IntN(i+1))
					}
					w.c.Put(claim(fmt.Sprint("c", i), k))
				case "drop":
					_ = w.c.Delete(t.Context(), kube.PersistentVolumeClaim, "ns", fmt.Sprint("c", r.IntN(i+1)), metav1.DeleteOptions{})
				case "vanish":
					w.c.Remove(kube.PersistentVolume, "", fmt.Sprint("v", r.IntN(i+1)))
				case "bind": // the scheduler, on what it saw a moment ago
					for _, v := range control.List[*corev1.PersistentVolume](w.c, kube.PersistentVolume, "") {
						for _, c := range control.List[*corev1.PersistentVolumeClaim](w.c, kube.PersistentVolumeClaim, "") {
							if v.Spec.ClaimRef == nil && v.Spec.StorageClassName == "slow" && mismatch(v, c) == "" && c.Spec.VolumeName == "" {
								_ = w.c.Commit(t.Context(), Bind(v, c).Writes())
							}
						}
					}
				}
				if r.IntN(3) == 0 {
					w.settle()
				}
			}
			w.settle()
			checkInvariants(t, w)
			if t.Failed() {
				t.Fatalf("seed %d:\n%s", seed, w.show())
			}
		})
	}
}

func checkInvariants(t *testing.T, w *script) {
	owners := map[string]string{}
	for _, c := range control.List[*corev1.PersistentVolumeClaim](w.c, kube.PersistentVolumeClaim, "") {
		if c.Status.Phase != corev1.ClaimBound {
			continue
		}
		v, ok := control.Get[*corev1.PersistentVolume](w.c, kube.PersistentVolume, "", c.Spec.VolumeName)
		if !ok || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != c.UID || v.Status.Phase != corev1.VolumeBound {
			t.Errorf("claim %s is bound to %s, which is %+v", c.Name, c.Spec.VolumeName, v)
			continue
		}
		if other := owners[v.Name]; other != "" {
			t.Errorf("volume %s has claims %s and %s", v.Name, other, c.Name)
		}
		owners[v.Name] = c.Name
	}
	for _, v := range control.List[*corev1.PersistentVolume](w.c, kube.PersistentVolume, "") {
		if v.Status.Phase == corev1.VolumeBound && owners[v.Name] == "" {
			t.Errorf("volume %s is bound to nobody", v.Name)
		}
		for _, c := range control.List[*corev1.PersistentVolumeClaim](w.c, kube.PersistentVolumeClaim, "") {
			if v.Status.Phase == corev1.VolumeAvailable && v.Spec.ClaimRef == nil && v.Spec.StorageClassName == "" &&
				c.Status.Phase == corev1.ClaimPending && c.Spec.VolumeName == "" && mismatch(v, c) == "" {
				t.Errorf("volume %s is free, and claim %s waits", v.Name, c.Name)
			}
		}
	}
}
