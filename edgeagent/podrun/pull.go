package podrun

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/internal/kube"
)

// pull has the image of a container's next attempt ready, as its policy wants; it works beside the worker.
func (w *worker) pull(ctx context.Context, pod *corev1.Pod, a action) {
	c := kube.ContainerNamed(pod, a.container)
	if c == nil {
		return
	}
	set, _ := w.m.current()
	ctx, cancel := context.WithCancel(ctx)
	job := &pulling{cancel}
	w.mu.Lock()
	old := w.mem.images[c.Name]
	if old.ref != c.Image {
		old = imageState{}
	}
	old.ref, old.inFlight = c.Image, true
	w.mem.images[c.Name] = old
	if earlier := w.pulls[c.Name]; earlier != nil { // of another image
		earlier.cancel()
	}
	w.pulls[c.Name] = job
	w.mu.Unlock()
	fail := failure{}
	w.job("podrun/pull", func() error {
		fail = w.fetch(ctx, pod, c, set, old.fail)
		return nil
	}, func(err error) {
		if err != nil { // a panic
			fail = w.pullFailed(ctx, pod, c, old.fail, reasonPull, err)
			fail.fault = true
		}
		w.mu.Lock()
		if w.pulls[c.Name] == job {
			delete(w.pulls, c.Name)
			w.mem.images[c.Name] = imageState{ref: c.Image, ready: fail.reason == "" && ctx.Err() == nil, fail: fail}
		}
		w.mu.Unlock()
		cancel()
		w.poke()
	})
}

// pulling is an image on its way to this node.
type pulling struct{ cancel context.CancelFunc }

// stopPulls gives up what the pod is waiting for: nobody wants it any more, and the link is for others.
func (w *worker) stopPulls() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pulls {
		p.cancel()
	}
}

// fetch finds or pulls an image. before is the failure of the last try.
func (w *worker) fetch(ctx context.Context, pod *corev1.Pod, c *corev1.Container, set *desired.Set, before failure) failure {
	t := w.m
	_, missing := t.cfg.Runtime.Image(ctx, c.Image)
	policy := pullPolicy(c)
	failed := func(reason string, err error) failure { return w.pullFailed(ctx, pod, c, before, reason, err) }
	switch {
	case errors.Is(missing, cruntime.ErrConfig):
		return failed(reasonBadImage, missing)
	case policy == corev1.PullNever && missing == nil, policy == corev1.PullIfNotPresent && missing == nil:
		t.events.pod(pod, c, corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine", c.Image)
		return failure{}
	case policy == corev1.PullNever:
		t.events.pod(pod, c, corev1.EventTypeWarning, reasonNeverPull, "Container image %q is not present with pull policy of Never", c.Image)
		why := fmt.Errorf("Container image %q is not present with pull policy of Never", c.Image)
		if e := (*cruntime.PlatformError)(nil); errors.As(missing, &e) {
			why = e
		}
		f := failed(reasonNeverPull, why)
		f.retry = t.cfg.Now().Add(backoffFirst) // it may be imported at any moment
		return f
	case missing != nil && !errors.Is(missing, cruntime.ErrNotFound):
		return failed(reasonPull, missing)
	}
	var f failure
	slots := t.pulls
	if missing == nil {
		slots = t.asks
	}
	err := w.pullInTurn(ctx, slots, func(ctx context.Context) (err error) {
		f, err = w.fromRegistry(ctx, pod, c, set, missing == nil)
		return err
	})
	if err != nil {
		return failed(reasonPull, err)
	}
	return f
}

// pullFailed is what becomes of a pull that has failed. before is the failure of the last try.
func (w *worker) pullFailed(ctx context.Context, pod *corev1.Pod, c *corev1.Container, before failure, reason string, err error) failure {
	t := w.m
	if ctx.Err() != nil {
		return failure{}
	}
	delay := min(max(2*before.delay, backoffFirst), backoffMax)
	t.events.pod(pod, c, corev1.EventTypeWarning, "Failed", "Failed to pull image %q: %v", c.Image, err)
	t.events.pod(pod, c, corev1.EventTypeWarning, "Failed", "Error: %s", reason)
	f := failure{reason: reason, message: err.Error(), retry: t.cfg.Now().Add(delay), delay: delay}
	if before.reason != "" && reason == reasonPull {
		t.events.pod(pod, c, corev1.EventTypeNormal, "BackOff", "Back-off pulling image %q", c.Image)
		f.reason, f.message = reasonPullWait, fmt.Sprintf("Back-off pulling image %q: %s: %v", c.Image, reasonPull, err)
	}
	return f
}

// pullInTurn runs a pull when the pod, of which one image comes at a time, and the node have a slot for it.
func (w *worker) pullInTurn(ctx context.Context, slots *slots, pull func(context.Context) error) error {
	select {
	case w.pullTurn <- struct{}{}:
		defer func() { <-w.pullTurn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return slots.run(ctx, nil, pull)
}

// fromRegistry asks an image's registry for it. present: the image is here already, and does when the registry is away.
func (w *worker) fromRegistry(ctx context.Context, pod *corev1.Pod, c *corev1.Container, set *desired.Set, present bool) (failure, error) {
	t := w.m
	if present && t.away.is(registryOf(c.Image), t.cfg.Now()) {
		t.events.pod(pod, c, corev1.EventTypeWarning, "RegistryUnreachable", "Registry of image %q did not answer a moment ago, using the image that is present", c.Image)
		return failure{}, nil
	}
	t.events.pod(pod, c, corev1.EventTypeNormal, "Pulling", "Pulling image %q", c.Image)
	begin := t.cfg.Now()
	img, err := t.cfg.Runtime.Pull(ctx, c.Image, credentials(pod, c.Image, set))
	if errors.Is(err, cruntime.ErrUnreachable) {
		t.away.note(registryOf(c.Image), t.cfg.Now())
	}
	switch {
	case err == nil:
		t.events.pod(pod, c, corev1.EventTypeNormal, "Pulled", "Successfully pulled image %q in %s. Image ID: %s", c.Image,
			t.cfg.Now().Sub(begin).Round(time.Millisecond), img.ID)
		return failure{}, nil
	case present && errors.Is(err, cruntime.ErrUnreachable):
		// Offline is a normal state: what is here runs, and a later start asks the registry again.
		t.events.pod(pod, c, corev1.EventTypeWarning, "RegistryUnreachable", "Registry of image %q does not answer, using the image that is present: %v", c.Image, err)
		return failure{}, nil
	}
	return failure{}, err
}

// awayFor is how long a registry that did not answer is not asked about images that are here: after a reboot without a
// link, pods start one wait for the registry later, not one after the other.
const awayFor = 30 * time.Second

// registries are those that did not answer lately.
type registries struct {
	mu sync.Mutex
	m  map[string]time.Time // until when, by host
}

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

// pullPolicy is the container's policy, or what its image's tag stands for.
func pullPolicy(c *corev1.Container) corev1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	name := c.Image[strings.LastIndexByte(c.Image, '/')+1:]
	if strings.Contains(name, "@") || strings.Contains(name, ":") && !strings.HasSuffix(name, ":latest") {
		return corev1.PullIfNotPresent
	}
	return corev1.PullAlways
}

// credentials finds the logins for an image's registry in the pod's imagePullSecrets, the most specific first.
func credentials(pod *corev1.Pod, image string, set *desired.Set) []cruntime.Credential {
	var out []cruntime.Credential
	best := map[int][]cruntime.Credential{}
	longest := 0
	for _, ref := range pod.Spec.ImagePullSecrets {
		s := set.Secret(pod.Namespace, ref.Name)
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

// matchRegistry tells whether a docker config's key covers an image, and how closely.
func matchRegistry(key, image string) (int, bool) {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, path, _ := strings.Cut(key, "/")
	if path == "v1/" || path == "v2/" || path == "v1" || path == "v2" {
		path = ""
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	have, rest := registryOf(image), strings.TrimPrefix(image, registryOf(image)+"/")
	if strings.HasPrefix(host, "*.") {
		if _, after, ok := strings.Cut(have, "."); !ok || after != host[2:] {
			return 0, false
		}
	} else if host != have {
		return 0, false
	}
	path = strings.Trim(path, "/")
	if path != "" && rest != path && !strings.HasPrefix(rest, path+"/") && !strings.HasPrefix(rest, path+":") {
		return 0, false
	}
	return len(path), true
}
