package bench

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	greedyRequests = 200                   // at one time
	greedyEnv      = "PETREL_BENCH_GREEDY" // the kubeconfig; it makes this program the greedy client
	otherUser      = "other"
	greedyUser     = "greedy"
)

// beGreedy lists all pods with 200 requests at one time, each on a connection of its own, until the process is ended.
func beGreedy(kubeconfig string) int {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return 1
	}
	c, err := rest.TLSConfigFor(config)
	if err != nil {
		return 1
	}
	var group sync.WaitGroup
	for range greedyRequests {
		group.Go(func() {
			hc := oneConnection(c)
			for {
				get(context.Background(), hc, config.Host+"/api/v1/pods", greedyUser)
			}
		})
	}
	group.Wait()
	return 0
}

func oneConnection(c *tls.Config) *http.Client {
	c = c.Clone()
	c.NextProtos = []string{"http/1.1"}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c}}
}

// get reads an answer to the end as a user, and returns its code; 0 when there was none.
func get(ctx context.Context, c *http.Client, url, user string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Impersonate-User", user)
	req.Header.Set("Impersonate-Group", "system:authenticated")
	resp, err := c.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}

// BenchmarkGreedy reads one of 5,000 pods while a client in a process of its own lists all of them with 200 requests at one time. It
// reports how many of the reads succeed, and what the greedy client gets done.
func BenchmarkGreedy(b *testing.B) {
	h := filled(b, 5000)
	c := h.client()
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "bench"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}}
	for _, name := range []string{otherUser, greedyUser} {
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: name})
	}
	if _, err := c.RbacV1().ClusterRoleBindings().Create(b.Context(), binding, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	tlsConfig, err := rest.TLSConfigFor(h.config)
	if err != nil {
		b.Fatal(err)
	}
	hc := oneConnection(tlsConfig)
	read := func(b *testing.B) {
		var took []time.Duration
		good := 0
		for i := 0; b.Loop(); i++ {
			began := time.Now()
			if get(b.Context(), hc, h.config.Host+"/api/v1/namespaces/default/pods/p-0"+strconv.Itoa(1000+i%1000), otherUser) == http.StatusOK {
				good++
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		b.ReportMetric(p50(took), "p50-ms")
		b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
		b.ReportMetric(100*float64(good)/float64(len(took)), "%good")
	}
	b.Run("alone", read)
	b.Run("beside", func(b *testing.B) {
		greedy := exec.Command(os.Args[0])
		greedy.Env = append(os.Environ(), greedyEnv+"="+filepath.Join(h.dir, "admin.kubeconfig"))
		if err := greedy.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() { _ = greedy.Process.Kill(); _ = greedy.Wait() }()
		time.Sleep(3 * time.Second) // it is a measurement: the greedy client is at work by then
		read(b)
	})
}
