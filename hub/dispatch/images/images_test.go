package images

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// fleet is what nodes report, without a link.
type fleet struct {
	*testing.T
	*Images
	now  time.Time
	seen map[string]string // what a subscriber knows
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{T: t, Images: New(func(string, string) bool { return true }), now: time.Unix(1e9, 0), seen: map[string]string{}}
	f.Subscribe(t.Context(), func(image string, a []string) {
		if len(a) == 0 {
			delete(f.seen, image)
		} else {
			f.seen[image] = strings.Join(a, " ")
		}
	})
	return f
}

// report gives the node a pod with the image and has it report what it found. "local" first among the platforms is an imported copy.
func (f *fleet) report(node, image, platforms string) { f.reportOf(node, image, platforms, true) }

func (f *fleet) reportOf(node, image, platforms string, used bool) {
	platforms, local := strings.CutPrefix(platforms, "local ")
	list := `"` + strings.ReplaceAll(platforms, " ", `","`) + `"`
	f.set(f.now, node, image, fmt.Appendf(nil, `{"platforms":[%s],"local":%v}`, list, local), used)
}

func (f *fleet) wait(d time.Duration) {
	f.now = f.now.Add(d)
	f.Expire(f.now)
}

func (f *fleet) want(image, platforms string) {
	f.Helper()
	if got := f.seen[image]; got != platforms {
		f.Errorf("%s is known for %q, want %q", image, got, platforms)
	}
}

func TestImageReports(t *testing.T) {
	for name, script := range map[string]func(f *fleet){
		"a node's newest report replaces its older one": func(f *fleet) {
			f.report("a", "app:1", "arm64")
			f.want("app:1", "arm64")
			f.report("a", "app:1", "amd64 arm64")
			f.want("app:1", "amd64 arm64")
			f.report("a", "app:1", "amd64")
			f.want("app:1", "amd64")
		},
		"no node makes an image unknown that another one has": func(f *fleet) {
			f.report("good", "nginx:1", "amd64 arm64")
			f.report("liar", "nginx:1", "riscv64")
			f.want("nginx:1", "amd64 arm64 riscv64")
			f.Forget(f.now, "good")
			f.want("nginx:1", "riscv64")
			f.Forget(f.now, "liar")
			f.want("nginx:1", "")
		},
		"a node cannot report what it was not asked to run": func(f *fleet) {
			f.reportOf("liar", "nginx:1", "riscv64", false)
			f.want("nginx:1", "")
			f.use(f.now, "liar", "nginx:1", true) // a pod comes later
			f.want("nginx:1", "riscv64")
		},
		"an imported copy adds, and excludes nothing": func(f *fleet) {
			f.report("pi", "app:1", "local arm64")
			f.want("app:1", "")
			f.report("pc", "app:1", "amd64")
			f.want("app:1", "amd64 arm64")
		},
		"a report outlives its pod by a while": func(f *fleet) {
			f.report("a", "app:1", "arm64")
			f.use(f.now, "a", "app:1", false)
			f.clear(f.now, "a", "app:1")
			f.wait(linger - time.Second)
			f.want("app:1", "arm64")
			f.wait(time.Second)
			f.want("app:1", "")
			if len(f.reports)+len(f.count) > 0 {
				f.Errorf("something is left: %v %v", f.reports, f.count)
			}
		},
		"a pod that comes back in time keeps it": func(f *fleet) {
			f.report("a", "app:1", "arm64")
			f.use(f.now, "a", "app:1", false)
			f.wait(linger / 2)
			f.use(f.now, "a", "app:1", true)
			f.wait(linger)
			f.want("app:1", "arm64")
		},
		"an agent that starts anew is given time to report again": func(f *fleet) {
			f.report("a", "app:1", "arm64")
			f.clear(f.now, "a", "app:1")
			f.want("app:1", "arm64")
			f.wait(time.Minute)
			f.report("a", "app:1", "arm64")
			f.wait(linger)
			f.want("app:1", "arm64")
		},
		"what a digest names does not change": func(f *fleet) {
			image := "app@sha256:" + strings.Repeat("0", 64)
			f.report("a", image, "arm64")
			f.use(f.now, "a", image, false)
			f.clear(f.now, "a", image)
			f.wait(1000 * time.Hour)
			f.want(image, "arm64")
			f.Forget(f.now, "a")
			f.want(image, "")
		},
		"nonsense clears what was reported before": func(f *fleet) {
			f.report("a", "app:1", "arm64")
			f.report("a", "app:1", strings.Repeat("x", 100))
			f.use(f.now, "a", "app:1", false)
			f.wait(linger)
			f.want("app:1", "")
			f.set(f.now, "a", "app:2", []byte("{"), true)
			f.set(f.now, "a", strings.Repeat("x", 10_000), []byte(`{"platforms":["arm64"]}`), true)
			if len(f.reports)+len(f.count) > 0 {
				f.Errorf("something is left: %v %v", f.reports, f.count)
			}
		},
		"a node that reports without end takes no room": func(f *fleet) {
			f.report("honest", "app:1", "arm64")
			for i := range 10 * maxImages {
				f.reportOf("liar", fmt.Sprint("x", i), "riscv64", false)
			}
			f.report("liar", "app:1", "amd64") // what it has a pod for still finds room
			f.want("app:1", "amd64 arm64")
			for i := range 10 * maxImages {
				f.report("liar", fmt.Sprint("y", i), "riscv64")
			}
			if f.count["liar"] != maxImages || len(f.reports) != maxImages {
				f.Errorf("%d reports of %d images", f.count["liar"], len(f.reports))
			}
			f.want("app:1", "amd64 arm64")
		},
	} {
		t.Run(name, func(t *testing.T) { script(newFleet(t)) })
	}
}
