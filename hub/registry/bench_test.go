package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/hub/registry/registrytest"
	"petrel.dev/petrel/hub/resource/builtin"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/memtest"
)

// benchPod is a pod as it is created: about 0.8 KB as stored.
func benchPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web", "tier": "front"}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "web", Image: "registry.example/web:1.2.3", Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
				Env:       []corev1.EnvVar{{Name: "MODE", Value: "production"}},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("64Mi")}},
			}},
		},
	}
}

func fill(b *testing.B, c control.Client, n int) {
	b.Helper()
	var writes []control.Write
	for i := range n {
		writes = append(writes, control.Write{Object: benchPod(fmt.Sprintf("pod-%05d", i))})
		if len(writes) == 500 || i == n-1 {
			if err := c.Commit(context.Background(), writes); err != nil {
				b.Fatal(err)
			}
			writes = nil
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	for _, writers := range []int{1, 16} {
		for _, cached := range []bool{false, true} {
			b.Run(fmt.Sprintf("writers=%d/cached=%v", writers, cached), func(b *testing.B) {
				r := registrytest.New(b)
				c := r.Client()
				if cached {
					c.List(kube.Pod, "")
				}
				t := registrytest.Target(b, kube.Pod, "default", "")
				var n atomic.Int64
				b.SetParallelism(max(writers/2, 1))
				b.ResetTimer()
				body := func(next func() bool) {
					for next() {
						pod := benchPod(fmt.Sprintf("pod-%d", n.Add(1)))
						if _, err := r.Create(context.Background(), t, pod, nil); err != nil {
							b.Error(err)
							return
						}
					}
				}
				if writers == 1 {
					i := 0
					body(func() bool { i++; return i <= b.N })
				} else {
					b.RunParallel(func(pb *testing.PB) { body(pb.Next) })
				}
			})
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	r := registrytest.New(b)
	b.ReportAllocs()
	fill(b, r.Client(), b.N)
}

// BenchmarkBind binds pods in the commits that the scheduler makes.
func BenchmarkBind(b *testing.B) {
	r := registrytest.New(b)
	c := r.Client()
	fill(b, c, b.N)
	pods := control.List[*corev1.Pod](c, kube.Pod, "")
	b.ResetTimer()
	for len(pods) > 0 {
		n := min(len(pods), 100)
		var writes []control.Write
		for _, p := range pods[:n] {
			bound := *p
			bound.Spec.NodeName = "edge-1"
			writes = append(writes, control.Write{Object: &bound, Subresource: "binding"})
		}
		if err := c.Commit(context.Background(), writes); err != nil {
			b.Fatal(err)
		}
		pods = pods[n:]
	}
}

func BenchmarkList(b *testing.B) {
	r := registrytest.New(b)
	fill(b, r.Client(), 5000)
	for _, opts := range []metav1.ListOptions{{}, {LabelSelector: "app=web"}, {FieldSelector: "spec.nodeName=edge-1"}} {
		b.Run("labels="+opts.LabelSelector+"/fields="+opts.FieldSelector, func(b *testing.B) {
			r.Client().List(kube.Pod, "")
			t := registrytest.Target(b, kube.Pod, "default", "")
			for b.Loop() {
				if _, err := r.List(context.Background(), t, &opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	r := registrytest.New(b)
	fill(b, r.Client(), 10000)
	c := r.Client()
	c.List(kube.Pod, "")
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if len(c.List(kube.Pod, "")) != 10000 {
				b.Fatal("pods are missing")
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			if _, ok := c.Get(kube.Pod, "default", "pod-00042"); !ok {
				b.Fatal("pod is missing")
			}
		}
	})
}

func BenchmarkWatch(b *testing.B) {
	for _, watchers := range []int{1, 50} {
		b.Run(fmt.Sprintf("selecting=%d", watchers), func(b *testing.B) {
			r := registrytest.New(b)
			t := registrytest.Target(b, kube.Pod, "default", "")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error, watchers)
			for range watchers {
				w, err := r.Watch(ctx, t, &metav1.ListOptions{LabelSelector: "app=web"})
				if err != nil {
					b.Fatal(err)
				}
				go func(w registry.Watch) {
					defer w.Close()
					seen := 0
					for seen < b.N {
						evs, err := w.Next(ctx)
						if err != nil {
							done <- err
							return
						}
						seen += len(evs)
					}
					done <- nil
				}(w)
			}
			b.ResetTimer()
			fill(b, r.Client(), b.N)
			for range watchers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCacheMemory measures what a pod costs in the typed cache, beyond its stored bytes.
func BenchmarkCacheMemory(b *testing.B) {
	const pods = 10000
	for b.Loop() {
		b.StopTimer()
		db := registrytest.Store(b)
		fill(b, registrytest.Make(registry.Config{Store: db, Kinds: builtinKinds}).Client(), pods)
		c := registrytest.Make(registry.Config{Store: db, Kinds: builtinKinds}).Client() // as after a restart: nothing is decoded
		before := memtest.Live()
		b.StartTimer()
		c.List(kube.Pod, "")
		b.StopTimer()
		b.ReportMetric(float64(memtest.Live()-before)/pods, "B/pod")
		c.List(kube.Pod, "")
		b.StartTimer()
	}
}

var builtinKinds = builtin.New()

// BenchmarkTracked compares writes of a pod whose managers are recorded with those of one that nobody ever applied, and applies. The
// object's size shows what the record of its managers costs.
func BenchmarkTracked(b *testing.B) {
	for _, mode := range []string{"patch, untracked", "patch, tracked", "apply", "apply, no change"} {
		b.Run(mode, func(b *testing.B) {
			r := registrytest.New(b)
			target := registrytest.Target(b, kube.Pod, "default", "p")
			pod := benchPod("p")
			pod.SetGroupVersionKind(kube.Pod)
			body, err := json.Marshal(pod)
			if err != nil {
				b.Fatal(err)
			}
			write := func(pt types.PatchType, body string) *registry.Result {
				res, err := r.Patch(ctx, target, pt, []byte(body), &metav1.PatchOptions{FieldManager: "bench"})
				if err != nil {
					b.Fatal(err)
				}
				return res
			}
			if mode == "patch, untracked" {
				registrytest.Create(b, r, pod)
			} else {
				write(types.ApplyYAMLPatchType, string(body))
			}
			var size int
			n := 0
			for b.Loop() {
				n++
				label := fmt.Sprintf(`"app":"%d"`, n)
				switch mode {
				case "apply":
					size = len(write(types.ApplyYAMLPatchType, strings.Replace(string(body), `"app":"web"`, label, 1)).JSON)
				case "apply, no change":
					size = len(write(types.ApplyYAMLPatchType, string(body)).JSON)
				default:
					size = len(write(types.MergePatchType, `{"metadata":{"labels":{`+label+`}}}`).JSON)
				}
			}
			b.ReportMetric(float64(size), "B/object")
		})
	}
}
