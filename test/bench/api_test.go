package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// configMap is an object of about 1 KiB.
func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"value": strings.Repeat("x", 800)}}
}

// pod is one of ordinary size: about 1.7 KB as JSON in a list. It is left to a scheduler that is not there, so that
// the API alone is measured.
func pod(name string) *corev1.Pod {
	env := make([]corev1.EnvVar, 3)
	for i := range env {
		env[i] = corev1.EnvVar{Name: fmt.Sprint("VARIABLE_", i), Value: "a value of ordinary length"}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web", "pod-template-hash": "5d4f8c7b9d"}},
		Spec: corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{
			Name: "app", Image: "registry.example/team/web:1.2.3", Env: env,
			Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}},
		}}},
	}
}

func createPod(ctx context.Context, c kubernetes.Interface, name string) error {
	_, err := c.CoreV1().Pods("default").Create(ctx, pod(name), metav1.CreateOptions{})
	return err
}

func createConfigMap(ctx context.Context, c kubernetes.Interface, name string) error {
	_, err := c.CoreV1().ConfigMaps("default").Create(ctx, configMap(name), metav1.CreateOptions{})
	return err
}

// BenchmarkCreate creates objects, each durable before its answer, by writers that wait for their answers. Writers share
// one client, and so one HTTP/2 connection, as the controllers of one program do.
func BenchmarkCreate(b *testing.B) {
	for what, create := range map[string]func(context.Context, kubernetes.Interface, string) error{"configmap": createConfigMap, "pod": createPod} {
		for _, writers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/writers=%d", what, writers), func(b *testing.B) {
				h := startHub(b)
				c := h.client()
				var n atomic.Int64
				one := func() {
					if err := create(b.Context(), c, fmt.Sprintf("made-%d", n.Add(1))); err != nil {
						b.Error(err)
					}
				}
				for range 200 { // connections, codecs and the WAL are there, as in a hub that has been up for a while
					one()
				}
				cpu, written := h.cpu(), h.written()
				work := make(chan struct{})
				var group sync.WaitGroup
				for range writers {
					group.Go(func() {
						for range work {
							one()
						}
					})
				}
				for b.Loop() {
					work <- struct{}{}
				}
				close(work)
				group.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
				b.ReportMetric(float64((h.cpu()-cpu).Microseconds())/float64(b.N), "hub-cpu-µs/op")
				b.ReportMetric(float64(h.written()-written)/float64(b.N), "disk-B/op")
			})
		}
	}
}

// filled is a hub with n pods.
func filled(b *testing.B, n int) *hub {
	b.Helper()
	h := startHub(b)
	c := h.client()
	var next atomic.Int64
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := createPod(b.Context(), c, fmt.Sprintf("p-%05d", i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return h
}

// BenchmarkList lists 5,000 pods: as bytes read to the end, which is what the hub costs, and decoded by client-go, which
// is mostly what the client costs.
func BenchmarkList(b *testing.B) {
	h := filled(b, 5000)
	hc, err := rest.HTTPClientFor(h.config)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bytes", func(b *testing.B) {
		var size int64
		p50 := median(b, func() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, h.config.Host+"/api/v1/pods", nil)
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Accept", "application/json")
			resp, err := hc.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			size, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Fatalf("status %d, %v", resp.StatusCode, err)
			}
		})
		b.ReportMetric(p50, "p50-ms")
		b.ReportMetric(float64(size)/1e6, "MB")
	})
	b.Run("decoded", func(b *testing.B) {
		c := h.client()
		b.ReportMetric(median(b, func() {
			list, err := c.CoreV1().Pods("").List(b.Context(), metav1.ListOptions{})
			if err != nil || len(list.Items) != 5000 {
				b.Fatalf("%d pods, %v", len(list.Items), err)
			}
		}), "p50-ms")
	})
	b.Run("one-of-them", func(b *testing.B) {
		c := h.client()
		b.ReportMetric(median(b, func() {
			if _, err := c.CoreV1().Pods("default").Get(b.Context(), "p-02500", metav1.GetOptions{}); err != nil {
				b.Fatal(err)
			}
		}), "p50-ms")
	})
}

// median is the middle duration of f's runs, in milliseconds.
func median(b *testing.B, f func()) float64 {
	var all []time.Duration
	for b.Loop() {
		began := time.Now()
		f()
		all = append(all, time.Since(began))
	}
	return p50(all)
}

func p50(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2].Microseconds()) / 1000
}

// BenchmarkWatch is the way of one change to 100 watchers, each on a connection of its own: an operation is one create
// that all of them have been told of.
func BenchmarkWatch(b *testing.B) {
	const watchers = 100
	h := startHub(b)
	seen := make(chan struct{}, watchers)
	for range watchers {
		c, err := kubernetes.NewForConfigAndClient(h.config, ownConnection(b, h.config))
		if err != nil {
			b.Fatal(err)
		}
		w, err := c.CoreV1().ConfigMaps("default").Watch(b.Context(), metav1.ListOptions{FieldSelector: "metadata.name!=kube-root-ca.crt"})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(w.Stop)
		go follow(w, seen)
	}
	c := h.client()
	n := 0
	cpu := h.cpu()
	for b.Loop() {
		n++
		if err := createConfigMap(b.Context(), c, fmt.Sprintf("made-%d", n)); err != nil {
			b.Fatal(err)
		}
		for range watchers {
			<-seen
		}
	}
	b.ReportMetric(float64(b.N*watchers)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64((h.cpu()-cpu).Microseconds())/float64(b.N*watchers), "hub-cpu-µs/event")
}

// ownConnection is an HTTP client that shares no connection with another.
func ownConnection(b *testing.B, config *rest.Config) *http.Client {
	b.Helper()
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		b.Fatal(err)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: tls, ForceAttemptHTTP2: true}}
}

func follow(w watch.Interface, seen chan<- struct{}) {
	for e := range w.ResultChan() {
		if o, ok := e.Object.(*corev1.ConfigMap); ok && strings.HasPrefix(o.Name, "made-") {
			seen <- struct{}{}
		}
	}
}

// BenchmarkStart is the time from the start of the process to the first good answer of /readyz, with an empty data
// directory and with the keys and objects of an earlier run.
func BenchmarkStart(b *testing.B) {
	for _, again := range []bool{false, true} {
		b.Run(map[bool]string{false: "first", true: "again"}[again], func(b *testing.B) {
			var all []time.Duration
			for b.Loop() {
				h := startHub(b)
				if again {
					h.stop()
					h.start()
				}
				all = append(all, h.startup)
				h.stop()
			}
			b.ReportMetric(0, "ns/op") // with the end of each hub in it, it would mislead
			b.ReportMetric(p50(all), "p50-ms")
		})
	}
}
