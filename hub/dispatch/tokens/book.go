package tokens

import (
	"iter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
)

const (
	// The lifetime that Kubernetes' admission asks for in every pod means "as usual". Renewing it hourly would cost a
	// node with ten pods more traffic than all else together, so usual means a day here.
	usualSeconds  = 3607
	usualLifetime = 24 * time.Hour
	minLifetime   = 10 * time.Minute
	// Retry is the pause after a token could not be made.
	Retry = 15 * time.Second
)

// Book holds the tokens of one node's pods. It outlives the node's sessions, and is owned by one goroutine.
type Book struct {
	tokens map[string]*token // by UID on the wire: the pod's UID and the audience
}

// token is a ServiceAccount token of one pod for one audience.
type token struct {
	id       wire.ID
	pod      *corev1.Pod
	audience string
	lifetime time.Duration

	obj     *wire.Object // nil: none, or only on the node
	expires time.Time    // zero: none
	making  bool         // a Request for it is out
	retry   time.Time    // not before; zero: at any time
}

// Request is a token that is to be made.
type Request struct {
	Pod      *corev1.Pod
	token    *token
	id       wire.ID
	audience string // empty: the API server's own
	lifetime time.Duration
}

// Result is what became of a Request.
type Result struct {
	Request
	Err     error
	object  *wire.Object // nil when Err is set
	expires time.Time
}

// NewBook returns a Book without tokens.
func NewBook() *Book { return &Book{tokens: map[string]*token{}} }

// due returns when the token is to be renewed: at 80 % of its life.
func (t *token) due() time.Time {
	if t.expires.IsZero() {
		return t.retry
	}
	due := t.expires.Add(-t.lifetime / 5)
	if t.retry.After(due) {
		return t.retry
	}
	return due
}

// missing reports whether there is no token at all, not even one that only the node holds.
func (t *token) missing() bool { return t.obj == nil && t.expires.IsZero() }

// placeholder returns an object in place of a token that only the node holds. It must never be sent: it is in a set only while the node has
// exactly this version.
func (t *token) placeholder() *wire.Object {
	return &wire.Object{ID: t.id, Version: uint64(t.expires.Unix()), Namespace: t.pod.Namespace, Name: t.pod.Name}
}

// request returns a Request for the token; the old one stays until the new one exists.
func (t *token) request() Request {
	t.making = true
	return Request{Pod: t.pod, token: t, id: t.id, audience: t.audience, lifetime: t.lifetime}
}

// ended reports whether a pod needs no newer token.
func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Open begins a session: the node has these pods. It drops the tokens of others, and those that only the agent had when that has
// lost everything (empty). It returns the tokens that exist; Have or Due decides what is missing, once it is known what the node
// has.
func (b *Book) Open(pods iter.Seq[*corev1.Pod], empty bool) (put []*wire.Object) {
	here := map[types.UID]bool{}
	for p := range pods {
		here[p.UID] = true
		b.want(p)
	}
	for key, t := range b.tokens {
		if !here[t.pod.UID] {
			delete(b.tokens, key)
			continue
		}
		if t.obj == nil && empty {
			t.expires = time.Time{}
		}
		t.making = false
		switch {
		case t.obj != nil:
			put = append(put, t.obj)
		case !t.expires.IsZero():
			put = append(put, t.placeholder())
		}
	}
	return put
}

// Want records the tokens that a pod mounts. It returns Requests for those that are new.
func (b *Book) Want(p *corev1.Pod) (made []Request) {
	for _, t := range b.want(p) {
		made = append(made, t.request())
	}
	return made
}

// want records the tokens that a pod mounts, and returns the new ones.
func (b *Book) want(p *corev1.Pod) (added []*token) {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Projected == nil {
			continue
		}
		for _, src := range p.Spec.Volumes[i].Projected.Sources {
			if src.ServiceAccountToken == nil {
				continue
			}
			uid := string(p.UID) + "/" + src.ServiceAccountToken.Audience
			if t := b.tokens[uid]; t != nil {
				t.pod = p
				continue
			}
			t := &token{
				id: wire.ID{Kind: wire.KindToken, UID: uid}, pod: p, audience: src.ServiceAccountToken.Audience,
				lifetime: lifetime(src.ServiceAccountToken.ExpirationSeconds),
			}
			b.tokens[uid] = t
			added = append(added, t)
		}
	}
	return added
}

func lifetime(seconds *int64) time.Duration {
	if seconds == nil || *seconds == usualSeconds {
		return usualLifetime
	}
	return max(kube.Seconds(*seconds), minLifetime)
}

// Drop removes the tokens of a pod that is gone from the node, and returns what to remove.
func (b *Book) Drop(pod types.UID) (remove []wire.ID) {
	for key, t := range b.tokens {
		if t.pod.UID == pod {
			remove = append(remove, t.id)
			delete(b.tokens, key)
		}
	}
	return remove
}

// Missing reports whether a token of a pod is still to be made. A pod that has ended gets none.
func (b *Book) Missing(p *corev1.Pod) bool {
	if ended(p) {
		return false
	}
	for _, t := range b.tokens {
		if t.pod.UID == p.UID && t.missing() {
			return true
		}
	}
	return false
}

// Have compares the node's map with the tokens: what the node holds stays until there is something newer.
func (b *Book) Have(entries []wire.Entry) (put []*wire.Object, remove []wire.ID) {
	got := map[string]uint64{}
	for _, e := range entries {
		if e.Kind == wire.KindToken {
			got[e.UID] = e.Version
		}
	}
	for _, t := range b.tokens {
		v, ok := got[t.id.UID]
		switch {
		case t.obj != nil:
		case ok:
			t.expires = time.Unix(int64(v), 0)
			put = append(put, t.placeholder())
		default:
			t.expires = time.Time{}
			remove = append(remove, t.id)
		}
	}
	return put, remove
}

// Due returns the tokens that are to be made now, and when the next ones are; zero: no other is.
func (b *Book) Due(now time.Time) (made []Request, next time.Time) {
	for _, t := range b.tokens {
		if t.making || ended(t.pod) {
			continue
		}
		if due := t.due(); !now.Before(due) {
			made = append(made, t.request())
		} else if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return made, next
}

// Made takes the result of a request. put is the new token, nil when it could not be made; next is when it is due. ok is
// false when the token is not wanted any more.
func (b *Book) Made(now time.Time, r Result) (put *wire.Object, next time.Time, ok bool) {
	t := r.token
	if b.tokens[r.id.UID] != t {
		return nil, time.Time{}, false
	}
	t.making = false
	if r.Err != nil {
		t.retry = now.Add(Retry)
		return nil, t.retry, true
	}
	t.obj, t.expires, t.retry = r.object, r.expires, time.Time{}
	return t.obj, t.due(), true
}
