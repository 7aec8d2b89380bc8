package pull

import (
	"encoding/base64"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
)

type secrets map[string]*corev1.Secret

func (s secrets) Secret(namespace, name string) *corev1.Secret { return s[namespace+"/"+name] }

// TestLoginsMatchImages covers which keys of a docker config cover an image. But for the last two the cases are those of
// the Kubernetes documentation ("Interpretation of config.json").
func TestLoginsMatchImages(t *testing.T) {
	for _, c := range []struct {
		key, image string
		want       bool
	}{
		{"*.kubernetes.io", "abc.kubernetes.io/app", true},
		{"*.kubernetes.io", "abc.def.kubernetes.io/app", false},
		{"*.kubernetes.io", "kubernetes.io/app", false},
		{"*.*.kubernetes.io", "abc.def.kubernetes.io/app", true},
		{"*.*.kubernetes.io", "abc.kubernetes.io/app", false},
		{"prefix.*.io", "prefix.kubernetes.io/app", true},
		{"*-good.kubernetes.io", "prefix-good.kubernetes.io/app", true},
		{"my-registry.io/images", "my-registry.io/images", true},
		{"my-registry.io/images", "my-registry.io/images/my-image:1", true},
		{"my-registry.io/images", "my-registry.io/another-image", false},
		{"*.my-registry.io/images", "sub.my-registry.io/images/my-image", true},
		{"*.my-registry.io/images", "a.sub.my-registry.io/images/my-image", false},
		{"localhost:5000", "localhost:5000/app", true},
		{"localhost:5001", "localhost:5000/app", false},
		{"https://index.docker.io/v1/", "busybox", true},
		{"https://registry.test/v2/", "registry.test/app", true},
		{"[", "registry.test/app", false},
		{"registry.test/team", "registry.test/teammate/app", false},
	} {
		if _, ok := matchRegistry(c.key, c.image); ok != c.want {
			t.Errorf("a login for %q covers %q: %v, want %v", c.key, c.image, ok, c.want)
		}
	}
}

// TestCredentials covers logins of both forms of secret, the most specific first; secrets that are missing or damaged hold
// none.
func TestCredentials(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("old:secret"))
	all := secrets{
		"ns/new": {Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"r.test":{"username":"wide","password":"1"},"r.test/team":{"username":"narrow","password":"2"},
			"other.test":{"username":"other"}}}`)}},
		"ns/old":     {Data: map[string][]byte{corev1.DockerConfigKey: []byte(fmt.Sprintf(`{"r.test/team/app":{"auth":%q}}`, auth))}},
		"ns/damaged": {Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte("{")}},
	}
	pod := &corev1.Pod{}
	pod.Namespace = "ns"
	for _, name := range []string{"new", "gone", "damaged", "old"} {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	want := []cruntime.Credential{{Username: "old", Password: "secret"}, {Username: "narrow", Password: "2"}, {Username: "wide", Password: "1"}}
	if got := credentials(pod, "r.test/team/app:1", all); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
