package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// fleet is what nodes say, without a link.
type fleet struct {
	*testing.T
	*images
	now  time.Time
	told map[string]string
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{T: t, images: newImages(), now: time.Unix(1e9, 0), told: map[string]string{}}
	f.listeners[0] = func(image string, a []string) {
		if len(a) == 0 {
			delete(f.told, image)
		} else {
			f.told[image] = strings.Join(a, " ")
		}
	}
	return f
}

// says: the node has a pod with the image and tells what it found. "local" first among the platforms is an imported copy.
func (f *fleet) says(node, image, platforms string) { f.tells(node, image, platforms, true) }

func (f *fleet) tells(node, image, platforms string, used bool) {
	platforms, local := strings.CutPrefix(platforms, "local ")
	list := `"` + strings.ReplaceAll(platforms, " ", `","`) + `"`
	f.say(f.now, node, image, fmt.Appendf(nil, `{"platforms":[%s],"local":%v}`, list, local), used)
}

func (f *fleet) wait(d time.Duration) {
	f.now = f.now.Add(d)
	f.expire(f.now)
}

func (f *fleet) want(image, platforms string) {
	f.Helper()
	if got := f.told[image]; got != platforms {
		f.Errorf("%s is known for %q, want %q", image, got, platforms)
	}
}

func TestImageWords(t *testing.T) {
	for name, script := range map[string]func(f *fleet){
		"a node's newest word replaces its older one": func(f *fleet) {
			f.says("a", "app:1", "arm64")
			f.want("app:1", "arm64")
			f.says("a", "app:1", "amd64 arm64")
			f.want("app:1", "amd64 arm64")
			f.says("a", "app:1", "amd64")
			f.want("app:1", "amd64")
		},
		"nobody talks an image away that another node has": func(f *fleet) {
			f.says("good", "nginx:1", "amd64 arm64")
			f.says("liar", "nginx:1", "riscv64")
			f.want("nginx:1", "amd64 arm64 riscv64")
			f.forget(f.now, "good")
			f.want("nginx:1", "riscv64")
			f.forget(f.now, "liar")
			f.want("nginx:1", "")
		},
		"a node has no say in what it was not asked for": func(f *fleet) {
			f.tells("liar", "nginx:1", "riscv64", false)
			f.want("nginx:1", "")
			f.use(f.now, "liar", "nginx:1", true) // a pod comes later
			f.want("nginx:1", "riscv64")
		},
		"an imported copy adds, and excludes nothing": func(f *fleet) {
			f.says("pi", "app:1", "local arm64")
			f.want("app:1", "")
			f.says("pc", "app:1", "amd64")
			f.want("app:1", "amd64 arm64")
		},
		"a word outlives its pod by a while": func(f *fleet) {
			f.says("a", "app:1", "arm64")
			f.use(f.now, "a", "app:1", false)
			f.unsay(f.now, "a", "app:1")
			f.wait(imageLinger - time.Second)
			f.want("app:1", "arm64")
			f.wait(time.Second)
			f.want("app:1", "")
			if len(f.words)+len(f.count) > 0 {
				f.Errorf("something is left: %v %v", f.words, f.count)
			}
		},
		"a pod that comes back in time keeps it": func(f *fleet) {
			f.says("a", "app:1", "arm64")
			f.use(f.now, "a", "app:1", false)
			f.wait(imageLinger / 2)
			f.use(f.now, "a", "app:1", true)
			f.wait(imageLinger)
			f.want("app:1", "arm64")
		},
		"an agent that starts anew is given time to say it again": func(f *fleet) {
			f.says("a", "app:1", "arm64")
			f.unsay(f.now, "a", "app:1")
			f.want("app:1", "arm64")
			f.wait(time.Minute)
			f.says("a", "app:1", "arm64")
			f.wait(imageLinger)
			f.want("app:1", "arm64")
		},
		"what a digest names does not change": func(f *fleet) {
			image := "app@sha256:" + strings.Repeat("0", 64)
			f.says("a", image, "arm64")
			f.use(f.now, "a", image, false)
			f.unsay(f.now, "a", image)
			f.wait(1000 * time.Hour)
			f.want(image, "arm64")
			f.forget(f.now, "a")
			f.want(image, "")
		},
		"nonsense takes back what was said before": func(f *fleet) {
			f.says("a", "app:1", "arm64")
			f.says("a", "app:1", strings.Repeat("x", 100))
			f.use(f.now, "a", "app:1", false)
			f.wait(imageLinger)
			f.want("app:1", "")
			f.say(f.now, "a", "app:2", []byte("{"), true)
			f.say(f.now, "a", strings.Repeat("x", 10_000), []byte(`{"platforms":["arm64"]}`), true)
			if len(f.words)+len(f.count) > 0 {
				f.Errorf("something is left: %v %v", f.words, f.count)
			}
		},
		"a node that talks without end takes no room": func(f *fleet) {
			f.says("honest", "app:1", "arm64")
			for i := range 10 * maxImages {
				f.tells("liar", fmt.Sprint("x", i), "riscv64", false)
			}
			f.says("liar", "app:1", "amd64") // what it has a pod for still finds room
			f.want("app:1", "amd64 arm64")
			for i := range 10 * maxImages {
				f.says("liar", fmt.Sprint("y", i), "riscv64")
			}
			if f.count["liar"] != maxImages || len(f.words) != maxImages {
				f.Errorf("%d words of %d images", f.count["liar"], len(f.words))
			}
			f.want("app:1", "amd64 arm64")
		},
	} {
		t.Run(name, func(t *testing.T) { script(newFleet(t)) })
	}
}
