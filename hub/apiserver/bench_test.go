package apiserver_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// benchPod is a pod of ordinary size: about 1.7 KB as JSON once it is stored.
func benchPod(name string) *corev1.Pod {
	env := make([]corev1.EnvVar, 8)
	for i := range env {
		env[i] = corev1.EnvVar{Name: fmt.Sprint("VARIABLE_", i), Value: "a value of ordinary length"}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "web", "pod-template-hash": "5d4f8c7b9d"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "app", Image: "registry.example/team/web:1.2.3", Env: env,
			Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}},
		}}},
	}
}

// Create over HTTPS by a client-go client on the same machine, durable.
func BenchmarkCreate(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			h := newHub(b)
			var n atomic.Int64
			c, err := kubernetes.NewForConfig(h.config)
			if err != nil {
				b.Fatal(err)
			}
			work := make(chan struct{})
			done := make(chan error, writers)
			b.ResetTimer()
			cpu := cpuTime(b)
			for range writers {
				go func() {
					for range work {
						p := benchPod(fmt.Sprint("p-", n.Add(1)))
						if _, err := c.CoreV1().Pods("default").Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			for range writers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
			b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// LIST of 5,000 pods over HTTPS, read to the end and not decoded.
func BenchmarkList5000(b *testing.B) {
	h := newHub(b)
	c := h.client()
	for i := range 5000 {
		if _, err := c.CoreV1().Pods("default").Create(context.Background(), benchPod(fmt.Sprint("p-", i)), metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	for _, proto := range []string{"h2", "http/1.1"} {
		b.Run(proto, func(b *testing.B) {
			cfg := clientTLS(h.t, h.pki)
			cfg.NextProtos = []string{proto}
			tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: proto == "h2"}
			if proto != "h2" {
				tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
			}
			hc := &http.Client{Transport: tr}
			var size int64
			for b.Loop() {
				resp, err := hc.Get(h.url + "/api/v1/pods")
				if err != nil {
					b.Fatal(err)
				}
				if size, err = io.Copy(io.Discard, resp.Body); err != nil {
					b.Fatal(err)
				}
				resp.Body.Close()
			}
			b.SetBytes(size)
			b.ReportMetric(float64(size)/(1<<20), "MiB")
		})
	}
}

// cpuTime is what this process, client and hub together, has used: a figure that other load on the machine hardly moves.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
