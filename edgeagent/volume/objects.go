package volume

import (
	"context"
	"os"

	corev1 "k8s.io/api/core/v1"
)

// fromObjects is what volumes made of API objects have in common: a directory of files that change in one step, and that containers
// only read.
type fromObjects struct{}

func (fromObjects) Unmount(_ context.Context, r Request) error { return unmount(r.Dir) }

func (fromObjects) ReadOnly(*corev1.Volume) bool { return true }

// Where files are kept: what is secret must not reach a disk.
const (
	onDisk   = false
	inMemory = true
)

// write has the volume show exactly these files.
func (fromObjects) write(r Request, files map[string]file, memory bool) error {
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return err
	}
	if memory {
		if err := tmpfs(r.Dir, 0, 0o755, nil); err != nil {
			return err
		}
	}
	return writeAtomic(r.Dir, files, fsGroup(r.Pod))
}

// configMap may lie on the disk: what is in it is no secret.
type configMap struct{ fromObjects }

func (configMap) Supports(v *corev1.Volume) bool { return v.ConfigMap != nil }

func (p configMap) Mount(_ context.Context, r Request) error {
	s := r.Volume.ConfigMap
	files, err := configMapFiles(r.Pod.Namespace, s.Name, s.Items, isTrue(s.Optional), modeOr(s.DefaultMode), r.Source)
	if err != nil {
		return err
	}
	return p.write(r, files, onDisk)
}

func (configMap) Objects(r Request) []any {
	return []any{r.Source.ConfigMap(r.Pod.Namespace, r.Volume.ConfigMap.Name)}
}

// secret lives in memory only.
type secret struct{ fromObjects }

func (secret) Supports(v *corev1.Volume) bool { return v.Secret != nil }

func (p secret) Mount(_ context.Context, r Request) error {
	s := r.Volume.Secret
	files, err := secretFiles(r.Pod.Namespace, s.SecretName, s.Items, isTrue(s.Optional), modeOr(s.DefaultMode), r.Source)
	if err != nil {
		return err
	}
	return p.write(r, files, inMemory)
}

func (secret) Objects(r Request) []any {
	return []any{r.Source.Secret(r.Pod.Namespace, r.Volume.Secret.SecretName)}
}

// downwardAPI is made of the pod itself.
type downwardAPI struct{ fromObjects }

func (downwardAPI) Supports(v *corev1.Volume) bool { return v.DownwardAPI != nil }

func (p downwardAPI) Mount(_ context.Context, r Request) error {
	files, err := downwardFiles(r, r.Volume.DownwardAPI.Items, modeOr(r.Volume.DownwardAPI.DefaultMode))
	if err != nil {
		return err
	}
	return p.write(r, files, inMemory)
}

// projected is several of the others in one directory, and tokens.
type projected struct{ fromObjects }

func (projected) Supports(v *corev1.Volume) bool { return v.Projected != nil }

func (p projected) Mount(_ context.Context, r Request) error {
	files, err := projectedFiles(r)
	if err != nil {
		return err
	}
	return p.write(r, files, inMemory)
}

func (projected) Objects(r Request) []any {
	var out []any
	for _, s := range r.Volume.Projected.Sources {
		switch {
		case s.ConfigMap != nil:
			out = append(out, r.Source.ConfigMap(r.Pod.Namespace, s.ConfigMap.Name))
		case s.Secret != nil:
			out = append(out, r.Source.Secret(r.Pod.Namespace, s.Secret.Name))
		case s.ServiceAccountToken != nil:
			out = append(out, r.Source.Token(string(r.Pod.UID), s.ServiceAccountToken.Audience))
		}
	}
	return out
}
