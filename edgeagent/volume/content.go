package volume

import (
	"errors"
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/downward"
	"petrel.dev/petrel/internal/kube"
)

// file is one file of a volume made of API objects, at a path relative to it.
type file struct {
	data []byte
	mode int32
}

// projectedFiles gathers the files of all sources; later ones win.
func projectedFiles(r Request) (map[string]file, error) {
	pod, src, p := r.Pod, r.Source, r.Volume.Projected
	all, mode := map[string]file{}, modeOr(p.DefaultMode)
	for _, s := range p.Sources {
		var files map[string]file
		var err error
		switch {
		case s.ConfigMap != nil:
			files, err = configMapFiles(pod.Namespace, s.ConfigMap.Name, s.ConfigMap.Items, isTrue(s.ConfigMap.Optional), mode, src)
		case s.Secret != nil:
			files, err = secretFiles(pod.Namespace, s.Secret.Name, s.Secret.Items, isTrue(s.Secret.Optional), mode, src)
		case s.DownwardAPI != nil:
			files, err = downwardFiles(r, s.DownwardAPI.Items, mode)
		case s.ServiceAccountToken != nil:
			t := src.Token(string(pod.UID), s.ServiceAccountToken.Audience)
			if t == nil {
				return nil, fmt.Errorf("the token of service account %q has not come from the hub yet", pod.Spec.ServiceAccountName)
			}
			files = map[string]file{s.ServiceAccountToken.Path: {[]byte(t.Token), tokenMode(pod, mode)}}
		default:
			err = errors.New("this kind of projected source is not supported")
		}
		if err != nil {
			return nil, err
		}
		for k, f := range files {
			all[k] = f
		}
	}
	return all, nil
}

// tokenMode keeps a token from other users where a group or user is known that may read it.
func tokenMode(pod *corev1.Pod, mode int32) int32 {
	if fsGroup(pod) != nil {
		return 0o600
	}
	return mode
}

// configMapFiles returns the wanted keys of a ConfigMap; binary data comes over text of the same key.
func configMapFiles(namespace, name string, items []corev1.KeyToPath, optional bool, mode int32, src Source) (map[string]file, error) {
	cm := src.ConfigMap(namespace, name)
	if cm == nil {
		if optional {
			return nil, nil
		}
		return nil, fmt.Errorf("configmap %q not found", name)
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	files, err := pick(data, items, optional, mode)
	if err != nil {
		return nil, fmt.Errorf("configmap %q: %w", name, err)
	}
	return files, nil
}

// secretFiles returns the wanted keys of a Secret.
func secretFiles(namespace, name string, items []corev1.KeyToPath, optional bool, mode int32, src Source) (map[string]file, error) {
	s := src.Secret(namespace, name)
	if s == nil {
		if optional {
			return nil, nil
		}
		return nil, fmt.Errorf("secret %q not found", name)
	}
	files, err := pick(s.Data, items, optional, mode)
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", name, err)
	}
	return files, nil
}

// pick takes the wanted keys, or all of them.
func pick(data map[string][]byte, items []corev1.KeyToPath, optional bool, mode int32) (map[string]file, error) {
	files := map[string]file{}
	if items == nil {
		for k, v := range data {
			files[k] = file{v, mode}
		}
		return files, nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if optional {
				continue
			}
			return nil, fmt.Errorf("references non-existent key: %s", it.Key)
		}
		f := file{v, mode}
		if it.Mode != nil {
			f.mode = *it.Mode
		}
		files[path.Clean(it.Path)] = f
	}
	return files, nil
}

// downwardFiles returns fields of the pod and resources of its containers, as texts.
func downwardFiles(r Request, items []corev1.DownwardAPIVolumeFile, mode int32) (map[string]file, error) {
	files := map[string]file{}
	for _, it := range items {
		f := file{mode: mode}
		if it.Mode != nil {
			f.mode = *it.Mode
		}
		var text string
		var err error
		switch {
		case it.FieldRef != nil:
			text, err = downward.Field(r.Pod, it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			c := kube.ContainerNamed(r.Pod, it.ResourceFieldRef.ContainerName)
			if c == nil {
				return nil, fmt.Errorf("%s: the pod has no container %q", it.Path, it.ResourceFieldRef.ContainerName)
			}
			text, err = downward.ResourceField(it.ResourceFieldRef, r.Pod, c, r.Allocatable)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", it.Path, err)
		}
		f.data = []byte(text)
		files[path.Clean(it.Path)] = f
	}
	return files, nil
}

// modeOr returns the mode of files that have none of their own; the API's default is 0644.
func modeOr(p *int32) int32 {
	if p == nil {
		return 0o644
	}
	return *p
}

func isTrue(b *bool) bool { return b != nil && *b }
