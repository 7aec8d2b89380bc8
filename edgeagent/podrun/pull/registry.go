package pull

import (
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// awayFor is how long a registry that did not answer is not asked about images that are here: after a reboot without a
// link, pods start one wait for the registry later, not one after the other.
const awayFor = 30 * time.Second

// registries are those that did not answer lately.
type registries struct {
	mu sync.Mutex           // guards m
	m  map[string]time.Time // until when, by host
}

// is reports whether a registry did not answer a moment ago.
func (r *registries) is(host string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Before(r.m[host])
}

func (r *registries) note(host string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.m[host] = now.Add(awayFor)
}

// registryOf is the host that an image comes from.
func registryOf(image string) string {
	host, _, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "docker.io"
	}
	return host
}

// Policy returns the policy that the spec has for an image, or what the image's tag stands for.
func Policy(image string, spec corev1.PullPolicy) corev1.PullPolicy {
	if spec != "" {
		return spec
	}
	name := image[strings.LastIndexByte(image, '/')+1:]
	if strings.Contains(name, "@") || strings.Contains(name, ":") && !strings.HasSuffix(name, ":latest") {
		return corev1.PullIfNotPresent
	}
	return corev1.PullAlways
}
