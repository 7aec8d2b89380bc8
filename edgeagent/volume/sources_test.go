package volume

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestOtherSourcesAreRefused checks that a kind of volume that is not made here holds the pod back and says what there is; none
// is an empty directory in silence. Kinds that upstream adds are seen here without a change.
func TestOtherSourcesAreRefused(t *testing.T) {
	served := []string{"HostPath", "EmptyDir", "Secret", "DownwardAPI", "ConfigMap", "Projected", "PersistentVolumeClaim", "Ephemeral", "Image"}
	typ := reflect.TypeFor[corev1.VolumeSource]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		if slices.Contains(served, name) {
			continue
		}
		var src corev1.VolumeSource
		reflect.ValueOf(&src).Elem().Field(i).Set(reflect.New(typ.Field(i).Type.Elem()))
		m := &Mounter{Dir: t.TempDir()}
		if err := m.Sync(t.Context(), podWith(vol("v", src)), objects{}); err == nil || !strings.Contains(err.Error(), "a node has emptyDir, hostPath") {
			t.Errorf("%s: %v", name, err)
		}
	}
	typ = reflect.TypeFor[corev1.VolumeProjection]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		if slices.Contains([]string{"Secret", "DownwardAPI", "ConfigMap", "ServiceAccountToken"}, name) {
			continue
		}
		var src corev1.VolumeProjection
		reflect.ValueOf(&src).Elem().Field(i).Set(reflect.New(typ.Field(i).Type.Elem()))
		v := corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{src}}}
		if err := (&Mounter{Dir: t.TempDir()}).Sync(t.Context(), podWith(vol("v", v)), objects{}); err == nil || !strings.Contains(err.Error(), "not supported") {
			t.Errorf("projected %s: %v", name, err)
		}
	}
}
