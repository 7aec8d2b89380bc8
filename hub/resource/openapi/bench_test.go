package openapi

import (
	"maps"
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"petrel.dev/petrel/hub/resource/builtin"
)

// BenchmarkFirst is what the first requests for documents cost: the hashes of version 3, one document of it, all of them, version 2, and that as
// protobuf, which older kubectls read.
func BenchmarkFirst(b *testing.B) {
	for name, ask := range map[string]func(*Documents) error{
		"v3 hashes":   func(d *Documents) error { _, err := d.GroupVersions(); return err },
		"v3 apps":     func(d *Documents) error { _, _, _, err := d.V3(appsv1.SchemeGroupVersion, false); return err },
		"v3 all":      func(d *Documents) error { return readAll(d) },
		"v2":          func(d *Documents) error { _, _, err := d.V2(false); return err },
		"v2 protobuf": func(d *Documents) error { _, _, err := d.V2(true); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			kinds := builtin.New()
			for b.Loop() {
				if err := ask(New(kinds)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// readAll reads every document of version 3.
func readAll(d *Documents) error {
	_, err := d.GroupVersions()
	for gv := range maps.Clone(d.v3) {
		if _, _, _, verr := d.V3(gv, false); verr != nil {
			err = verr
		}
	}
	return err
}
