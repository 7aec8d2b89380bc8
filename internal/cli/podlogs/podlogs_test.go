package podlogs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// fleet has pods, and what their containers have written.
type fleet struct {
	dynamic.ResourceInterface
	pods    []unstructured.Unstructured
	changes *watch.FakeWatcher

	mu    sync.Mutex
	logs  map[string]func(url.Values) (io.ReadCloser, error) // by "pod/container"
	asked []string
}

func (f *fleet) List(context.Context, metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	return &unstructured.UnstructuredList{Items: f.pods}, nil
}

func (f *fleet) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return f.changes, nil
}

func (f *fleet) open(_ context.Context, pod string, q url.Values) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, pod+"?"+q.Encode())
	log, ok := f.logs[pod+"/"+q.Get("container")]
	if !ok {
		return nil, apierrors.NewServiceUnavailable("node pi3 is dark since 12:00")
	}
	return log(q)
}

func (f *fleet) set(container string, log func(url.Values) (io.ReadCloser, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logs[container] = log
}

// pod returns a pod whose containers run; each is in its first life.
func pod(t *testing.T, name string, containers ...string) unstructured.Unstructured {
	t.Helper()
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid"}, Spec: corev1.PodSpec{NodeName: "node-of-" + name}}
	for _, c := range containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c, ContainerID: "first", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}})
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&p)
	if err != nil {
		t.Fatal(err)
	}
	return unstructured.Unstructured{Object: content}
}

func text(s string) func(url.Values) (io.ReadCloser, error) {
	return func(url.Values) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// at returns a line of a log, written so many seconds after the hour.
func at(second int, s string) string { return fmt.Sprintf("2026-01-02T03:00:%02d.5Z %s", second, s) }

func request(f *fleet, out, errs io.Writer) *Request {
	return &Request{Pods: f, Open: f.open, Explain: error.Error, Limit: 10, Out: out, Err: errs, Query: url.Values{}}
}

// TestMerge checks the order of the lines, and that a log which cannot be read is named while the others are printed.
func TestMerge(t *testing.T) {
	long := strings.Repeat("x", longest+10)
	for _, c := range []struct {
		name  string
		logs  map[string]string
		set   func(*Request)
		out   string
		error string
	}{
		{"by time, and by pod at the same time", map[string]string{
			"a/one": at(1, "a1\n") + at(3, "a3\n") + at(4, "same\n"),
			"b/one": at(2, "b2\n") + at(4, "same\n") + at(9, "last"),
		}, nil, "[pod/a/one] a1\n[pod/b/one] b2\n[pod/a/one] a3\n[pod/a/one] same\n[pod/b/one] same\n[pod/b/one] last\n", ""},
		{"times are shown when asked for", map[string]string{"a/one": at(1, "a1\n"), "b/one": ""}, func(r *Request) { r.Timestamps = true },
			"[pod/a/one] 2026-01-02T03:00:01.5Z a1\n", ""},
		{"a line without a time follows the one before", map[string]string{"a/one": at(5, "a5\n") + "odd line\n", "b/one": at(6, "b6\n")}, nil,
			"[pod/a/one] a5\n[pod/a/one] odd line\n[pod/b/one] b6\n", ""},
		{"a long line is several", map[string]string{"a/one": at(1, long+"\n") + at(2, "next\n"), "b/one": ""}, nil,
			"[pod/a/one] " + long[:longest-len(at(1, ""))] + "\n[pod/a/one] " + long[:10+len(at(1, ""))] + "\n[pod/a/one] next\n", ""},
		{"a dark node", map[string]string{"a/one": at(1, "a1\n")}, nil, "[pod/a/one] a1\n",
			"pod/b/one on node node-of-b is missing: node pi3 is dark since 12:00"},
		{"one container", map[string]string{"a/one": at(1, "a1\n"), "b/one": at(2, "b2\n")}, func(r *Request) { r.Container = "one" },
			"[pod/a/one] a1\n[pod/b/one] b2\n", ""},
		{"a container that is not there", nil, func(r *Request) { r.Container = "two" }, "", "no container that matches has begun to run"},
		{"too many", nil, func(r *Request) { r.Limit = 1 }, "", "2 containers match, and not more than 1 logs are read at once: narrow the selector, or give --max-log-requests 2"},
		{"colours", map[string]string{"a/one": at(1, "a1\n"), "b/one": at(2, "b2\n")}, func(r *Request) { r.Colours = true },
			"\x1b[36m[pod/a/one]\x1b[0m a1\n\x1b[33m[pod/b/one]\x1b[0m b2\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fleet{pods: []unstructured.Unstructured{pod(t, "b", "one"), pod(t, "a", "one")}, logs: map[string]func(url.Values) (io.ReadCloser, error){}}
				for container, log := range c.logs {
					f.logs[container] = text(log)
				}
				var out, errs bytes.Buffer
				r := request(f, &out, &errs)
				if c.set != nil {
					c.set(r)
				}
				err := r.Run(t.Context())
				if got := fmt.Sprint(err); got != c.error && !(err == nil && c.error == "") {
					t.Errorf("error %q, want %q", got, c.error)
				}
				if out.String() != c.out {
					t.Errorf("%q, want %q", out.String(), c.out)
				}
			})
		})
	}
}

// TestFollow checks that a pod that comes is read too, that a log that breaks off goes on where it was, and that a silent one holds
// the others for a moment only.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{pods: []unstructured.Unstructured{pod(t, "a", "one"), pod(t, "silent", "one")}, changes: watch.NewFake(), logs: map[string]func(url.Values) (io.ReadCloser, error){}}
		reader, writer := io.Pipe()
		f.set("a/one", func(url.Values) (io.ReadCloser, error) { return reader, nil })
		silent, _ := io.Pipe()
		f.set("silent/one", func(url.Values) (io.ReadCloser, error) { return silent, nil })
		ctx, cancel := context.WithCancel(t.Context())
		context.AfterFunc(ctx, f.changes.Stop)
		var out, errs bytes.Buffer
		r := request(f, &out, &errs)
		r.Follow = true
		r.Query.Set("tailLines", "5")
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()

		send := func(s string) {
			if _, err := io.WriteString(writer, s); err != nil {
				t.Error(err)
			}
		}
		expect := func(after time.Duration, what, want string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if out.String() != want {
				t.Errorf("%s: %q, want %q", what, out.String(), want)
			}
			out.Reset()
		}
		send(at(1, "a1\n"))
		expect(opening-time.Second, "the silent log may still bring an older line", "")
		expect(2*time.Second, "it is not waited for any more", "[pod/a/one] a1\n")
		send(at(2, "a2\n"))
		expect(0, "nor for the next line", "[pod/a/one] a2\n")

		f.set("new/one", text(at(3, "n3\n")))
		added := pod(t, "new", "one")
		f.changes.Add(&added)
		f.changes.Modify(&added)
		expect(2*followPause, "a pod that comes", "[pod/new/one] n3\n")

		f.mu.Lock()
		delete(f.logs, "a/one")
		f.mu.Unlock()
		writer.CloseWithError(errors.New("unexpected EOF"))
		expect(5*time.Second, "the link is away", "")
		if want := "petrel: pod/a/one on node node-of-a: unexpected EOF; it is asked for again until it answers\n"; errs.String() != want {
			t.Errorf("%q, want %q", errs.String(), want)
		}
		errs.Reset()
		f.set("a/one", text(at(2, "a2\n")+at(4, "a4\n")))
		expect(2*lastRetry, "it is back, without what was printed", "[pod/a/one] a4\n")
		if want := "petrel: pod/a/one on node node-of-a is read again\n"; errs.String() != want {
			t.Errorf("%q, want %q", errs.String(), want)
		}
		asked := strings.Join(f.asked, "\n")
		for _, want := range []string{"a?container=one&follow=true&tailLines=5&timestamps=true", "new?container=one&follow=true&timestamps=true",
			"a?container=one&follow=true&sinceTime=2026-01-02T03%3A00%3A02Z&timestamps=true"} {
			if !strings.Contains(asked, want) {
				t.Errorf("%s was not asked for, only\n%s", want, asked)
			}
		}
		if n := strings.Count(asked, "new?"); n != 1 {
			t.Errorf("the log of the new pod was asked for %d times", n)
		}
		cancel()
		silent.CloseWithError(context.Canceled) // as the connection does
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// endless is a log without end that counts what is read of it.
type endless struct {
	second int
	read   int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, strings.Repeat(at(e.second, "text\n"), 100))
	e.read += n
	return n, nil
}

func (e *endless) Close() error { return nil }

// TestMemoryIsBounded checks that of a log whose lines cannot be printed yet no more than a buffer is read.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{pods: []unstructured.Unstructured{pod(t, "a", "one"), pod(t, "b", "one")}, logs: map[string]func(url.Values) (io.ReadCloser, error){}}
		early, late := &endless{second: 1}, &endless{second: 2}
		f.set("a/one", func(url.Values) (io.ReadCloser, error) { return early, nil })
		f.set("b/one", func(url.Values) (io.ReadCloser, error) { return late, nil })
		full := errors.New("the disk is full")
		lines := 0
		err := request(f, writerFunc(func(p []byte) (int, error) {
			if lines++; lines > 100_000 {
				return 0, full
			}
			return len(p), nil
		}), io.Discard).Run(t.Context())
		if !errors.Is(err, full) {
			t.Errorf("ended with %v", err)
		}
		synctest.Wait()
		if early.read < 1<<20 || late.read > 2*longest {
			t.Errorf("%d bytes of the log that is printed were read, and %d of the one that waits", early.read, late.read)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }
