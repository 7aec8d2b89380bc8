package pull

import (
	"encoding/base64"
	"encoding/json"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
)

// Logins are matched with images here, and not by upstream's keyring, because that one (k8s.io/kubernetes/pkg/credentialprovider)
// brings the feature gates and the library of an API server, and only hub/resource may import k8s.io/kubernetes. The rules
// are upstream's but for one: a path covers whole parts of a name, so that a login for "host/team" is not sent for "host/teammate".

// Secrets is where imagePullSecrets come from; nil for one that is not there.
type Secrets interface {
	Secret(namespace, name string) *corev1.Secret
}

// credentials finds the logins for an image's registry in the pod's imagePullSecrets, the most specific first.
func credentials(pod *corev1.Pod, image string, secrets Secrets) []cruntime.Credential {
	var out []cruntime.Credential
	best := map[int][]cruntime.Credential{}
	longest := 0
	for _, ref := range pod.Spec.ImagePullSecrets {
		s := secrets.Secret(pod.Namespace, ref.Name)
		if s == nil {
			continue
		}
		for host, a := range registryLogins(s) {
			if n, ok := matchRegistry(host, image); ok {
				best[n] = append(best[n], a)
				longest = max(longest, n)
			}
		}
	}
	for n := longest; n >= 0; n-- {
		out = append(out, best[n]...)
	}
	return out
}

// loginEntry is one login in a docker config. Auth is "user:password" in base64, and counts where Username is empty.
type loginEntry struct {
	Username, Password, Auth string
	IdentityToken            string `json:"identitytoken"`
}

// registryLogins reads a docker config, of either age.
func registryLogins(s *corev1.Secret) map[string]cruntime.Credential {
	entries := map[string]loginEntry{}
	if b, ok := s.Data[corev1.DockerConfigJsonKey]; ok {
		var f struct{ Auths map[string]loginEntry }
		if json.Unmarshal(b, &f) == nil {
			entries = f.Auths
		}
	} else if b, ok := s.Data[corev1.DockerConfigKey]; ok {
		_ = json.Unmarshal(b, &entries) // a damaged one holds no login
	}
	out := map[string]cruntime.Credential{}
	for host, e := range entries {
		if e.Username == "" && e.Auth != "" {
			if b, err := base64.StdEncoding.DecodeString(e.Auth); err == nil {
				e.Username, e.Password, _ = strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
			}
		}
		out[host] = cruntime.Credential{Username: e.Username, Password: e.Password, Token: e.IdentityToken}
	}
	return out
}

// matchRegistry reports whether a docker config's key covers an image, and how closely.
func matchRegistry(key, image string) (int, bool) {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, prefix, _ := strings.Cut(key, "/")
	if prefix == "v1/" || prefix == "v2/" || prefix == "v1" || prefix == "v2" {
		prefix = ""
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	have, rest := registryOf(image), strings.TrimPrefix(image, registryOf(image)+"/")
	if !matchHost(host, have) {
		return 0, false
	}
	prefix = strings.Trim(prefix, "/")
	if prefix != "" && rest != prefix && !strings.HasPrefix(rest, prefix+"/") && !strings.HasPrefix(rest, prefix+":") {
		return 0, false
	}
	return len(prefix), true
}

// matchHost reports whether a pattern covers a host with its port: label by label, where * stands for any part of one label.
func matchHost(pattern, host string) bool {
	patternName, patternPort, _ := strings.Cut(pattern, ":")
	hostName, hostPort, _ := strings.Cut(host, ":")
	want, have := strings.Split(patternName, "."), strings.Split(hostName, ".")
	if patternPort != hostPort || len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); !ok || err != nil {
			return false
		}
	}
	return true
}
