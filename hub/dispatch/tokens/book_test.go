package tokens

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/internal/wire"
)

// TestTokenLifetime checks that a projected token's expirationSeconds is how long it lives, the usual one longer, as upstream
// has it.
func TestTokenLifetime(t *testing.T) {
	src := corev1.ServiceAccountTokenProjection{ExpirationSeconds: new(int64(7200))}
	if got := lifetime(src.ExpirationSeconds); got != 2*time.Hour {
		t.Errorf("7200 s: %v", got)
	}
	if got := lifetime(new(int64(1))); got != minLifetime {
		t.Errorf("1 s: %v", got)
	}
	if lifetime(nil) != usualLifetime || lifetime(new(int64(usualSeconds))) != usualLifetime {
		t.Error("the usual token has another lifetime")
	}
}

// podOf is a pod that mounts a token for each audience; "" is the API server's own.
func podOf(name string, audiences ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(name)}}
	for _, a := range audiences {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: a, ExpirationSeconds: new(int64(36000))}}}}}})
	}
	return p
}

// desk is a Book whose requests a test answers.
type desk struct {
	*testing.T
	*Book
	now time.Time
	out []Request
}

func newDesk(t *testing.T) *desk {
	return &desk{T: t, Book: NewBook(), now: time.Unix(1e9, 0)}
}

// due asks for what is due, and returns when the next is, from now.
func (d *desk) due() time.Duration {
	made, next := d.Due(d.now)
	d.out = append(d.out, made...)
	if next.IsZero() {
		return 0
	}
	return next.Sub(d.now)
}

// asked is what has been asked for and not answered, sorted.
func (d *desk) asked() string {
	var ids []string
	for _, r := range d.out {
		ids = append(ids, r.id.UID)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// answer answers all that was asked for: with tokens that live for life, or with an error when that is zero.
func (d *desk) answer(life time.Duration) (put []string) {
	for _, r := range d.out {
		result := Result{Request: r}
		if life == 0 {
			result.Err = fmt.Errorf("no key")
		} else {
			result.expires = d.now.Add(life)
			result.object = &wire.Object{ID: r.id, Version: uint64(result.expires.Unix())}
		}
		if o, _, ok := d.Made(d.now, result); ok && o != nil {
			put = append(put, o.UID)
		}
	}
	d.out = nil
	slices.Sort(put)
	return put
}

func (d *desk) want(p *corev1.Pod) { d.out = append(d.out, d.Want(p)...) }

func uids(objects []*wire.Object) string {
	var out []string
	for _, o := range objects {
		out = append(out, fmt.Sprint(o.UID, "@", o.Version, "/", len(o.Data)))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestBook(t *testing.T) {
	for name, script := range map[string]func(d *desk){
		"each audience of a pod has a token, asked for once": func(d *desk) {
			d.want(podOf("web", "", "vault"))
			d.want(podOf("web", "", "vault"))
			d.due()
			if got := d.asked(); got != "web/ web/vault" {
				d.Errorf("asked for %q", got)
			}
			if !d.Missing(podOf("web")) || d.Missing(podOf("other")) {
				d.Error("a token is missing until it is made, and only its pod's")
			}
			if got := d.answer(10 * time.Hour); len(got) != 2 || d.Missing(podOf("web")) {
				d.Errorf("made: %q", got)
			}
		},
		"it is renewed at 80 % of its life, and the old one stays until then": func(d *desk) {
			d.want(podOf("web", ""))
			d.answer(10 * time.Hour)
			if next := d.due(); next != 8*time.Hour || d.asked() != "" {
				d.Errorf("due in %v", next)
			}
			d.now = d.now.Add(8 * time.Hour)
			d.due()
			if d.asked() != "web/" || d.Missing(podOf("web")) {
				d.Errorf("asked for %q", d.asked())
			}
		},
		"one that cannot be made is tried again after a pause": func(d *desk) {
			d.want(podOf("web", ""))
			d.answer(0)
			if next := d.due(); next != Retry || d.asked() != "" {
				d.Errorf("tried again in %v", next)
			}
			d.now = d.now.Add(Retry)
			if d.due(); d.asked() != "web/" {
				d.Errorf("asked for %q", d.asked())
			}
		},
		"a pod that has ended needs no newer one": func(d *desk) {
			p := podOf("web", "")
			d.want(p)
			d.answer(10 * time.Hour)
			p.Status.Phase = corev1.PodSucceeded
			d.want(p)
			d.now = d.now.Add(100 * time.Hour)
			if next := d.due(); next != 0 || d.asked() != "" || d.Missing(p) {
				d.Errorf("asked for %q, next in %v", d.asked(), next)
			}
		},
		"it goes with its pod, and what is made afterwards is not sent": func(d *desk) {
			d.want(podOf("web", "", "vault"))
			if gone := d.Drop("web"); len(gone) != 2 {
				d.Errorf("removed: %v", gone)
			}
			if got := d.answer(time.Hour); got != nil {
				d.Errorf("sent: %q", got)
			}
		},
		"a hub that starts anew makes none that the node holds": func(d *desk) {
			pods := slices.Values([]*corev1.Pod{podOf("old", ""), podOf("new", "")})
			if put := d.Open(pods, false); put != nil || !d.Missing(podOf("old")) {
				d.Errorf("put %q", uids(put))
			}
			held := d.now.Add(9 * time.Hour)
			put, remove := d.Have([]wire.Entry{{ID: wire.ID{Kind: wire.KindToken, UID: "old/"}, Version: uint64(held.Unix())}})
			if got := uids(put); got != fmt.Sprintf("old/@%d/0", held.Unix()) || len(remove) != 1 {
				d.Errorf("put %q, removed %v", got, remove)
			}
			if d.due(); d.asked() != "new/" || d.Missing(podOf("old")) {
				d.Errorf("asked for %q", d.asked())
			}
		},
		"with the next session go the tokens there are, and those of pods that went meanwhile do not": func(d *desk) {
			d.want(podOf("stays", ""))
			d.want(podOf("goes", ""))
			d.answer(10 * time.Hour)
			if got := uids(d.Open(slices.Values([]*corev1.Pod{podOf("stays", "")}), false)); got != fmt.Sprintf("stays/@%d/0", d.now.Add(10*time.Hour).Unix()) {
				d.Errorf("put %q", got)
			}
			if d.Drop("goes") != nil {
				d.Error("a token of a pod that is gone is kept")
			}
		},
		"what only the node held is made again when the node has lost all": func(d *desk) {
			pods := slices.Values([]*corev1.Pod{podOf("web", "")})
			d.Open(pods, false)
			d.Have([]wire.Entry{{ID: wire.ID{Kind: wire.KindToken, UID: "web/"}, Version: uint64(d.now.Add(time.Hour).Unix())}})
			if put := d.Open(pods, true); put != nil {
				d.Errorf("a placeholder would be sent: %q", uids(put))
			}
			if d.due(); d.asked() != "web/" {
				d.Errorf("asked for %q", d.asked())
			}
		},
	} {
		t.Run(name, func(t *testing.T) { script(newDesk(t)) })
	}
}
