package edgeagent

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petrel.dev/petrel/edgeagent/cruntime/runtimetest"
)

// TestImageDirectory checks that archives in DATA/images are imported at the start, once; again when the file is another; and that one
// that is damaged keeps nobody from the others.
func TestImageDirectory(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(m.data, "images")
	put := func(file string, r io.Reader) {
		t.Helper()
		f, err := os.Create(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(f, r); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	put("broken.tar", strings.NewReader("no archive"))
	imports := func(want int) {
		t.Helper()
		for end := time.Now().Add(runtimetest.Hope); ; time.Sleep(20 * time.Millisecond) {
			b, err := os.ReadFile(filepath.Join(m.data, "agent.log"))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Count(string(b), `msg="images imported"`)
			if got == want && strings.Contains(string(b), "image archive not imported") {
				return
			}
			if got > want || time.Now().After(end) {
				t.Fatalf("%d archives were imported, want %d\n%s", got, want, b)
			}
		}
	}
	again := func(objects ...any) {
		t.Helper()
		m.term()
		m.want(objects...)
		m.boot()
	}
	m.want(pod("a", sh("main", "sleep 1000")))
	m.boot()
	m.await("uid-a", "ready", ready)
	imports(1)

	again(pod("a", sh("main", "sleep 1000")))
	m.await("uid-a", "ready", ready)
	imports(1)

	put("busybox.tar", runtimetest.Tar(t, "petrel.test/other:2", runtimetest.Busybox(t)))
	b := pod("b", sh("main", "sleep 1000"))
	b.Spec.Containers[0].Image = "petrel.test/other:2"
	again(b)
	m.await("uid-b", "ready", ready)
	imports(2)
}
