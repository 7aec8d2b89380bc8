package operators

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// TestClients runs the clients that need no operator against one hub.
func TestClients(t *testing.T) {
	t.Parallel()
	h := startHub(t)
	for _, c := range []struct {
		name string
		test func(*hub)
	}{{"kustomize", kustomize}, {"scrape", scrape}, {"watch list", watchList}} {
		t.Run(c.name, func(t *testing.T) {
			sub := *h
			sub.t = t
			c.test(&sub)
		})
	}
}

// kustomize applies a base with an overlay: a prefix, labels, a patch, and a ConfigMap whose name has its content's hash.
func kustomize(h *hub) {
	h.kubectl("create", "namespace", "staging")
	h.kubectl("apply", "-k", "testdata/kustomize/overlay")
	first := h.kubectl("get", "deployment/staging-web", "-n", "staging", "-o", "jsonpath={.metadata.labels.env}{.spec.replicas}{.spec.template.spec.containers[0].envFrom[0].configMapRef.name}")
	if !strings.HasPrefix(first, "staging3staging-settings-") {
		h.t.Errorf("deployment: %s", first)
	}
	if out := h.kubectl("diff", "-k", "testdata/kustomize/overlay"); out != "" {
		h.t.Errorf("a difference after apply: %s", out)
	}
	h.kubectl("apply", "--server-side", "--force-conflicts", "-k", "testdata/kustomize/overlay")
	h.kubectl("delete", "-k", "testdata/kustomize/overlay")
	if out := h.kubectl("get", "deployments,services,configmaps", "-n", "staging", "-l", "env=staging", "-o", "name"); out != "" {
		h.t.Errorf("after the removal: %s", out)
	}
}

// scrape reads the hub's metrics as Prometheus does: with the token of a ServiceAccount that a ClusterRole lets read /metrics.
func scrape(h *hub) {
	h.kubectl("create", "serviceaccount", "prometheus")
	token := strings.TrimSpace(h.kubectl("create", "token", "prometheus"))
	config := rest.AnonymousClientConfig(h.config)
	config.BearerToken = token
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		h.t.Fatal(err)
	}
	if status, _, _ := get(h, client, "/metrics"); status != http.StatusForbidden {
		h.t.Errorf("without a role: %d", status)
	}
	h.kubectl("create", "clusterrole", "scrape", "--verb=get", "--non-resource-url=/metrics")
	h.kubectl("create", "clusterrolebinding", "scrape", "--clusterrole=scrape", "--serviceaccount=default:prometheus")
	var header http.Header
	var body []byte
	h.eventually("the role lets it in", func() error {
		status, head, b := get(h, client, "/metrics")
		header, body = head, b
		if status != http.StatusOK {
			return fmt.Errorf("status %d: %s", status, b)
		}
		return nil
	})
	if f := expfmt.ResponseFormat(header); f.FormatType() != expfmt.TypeTextPlain {
		h.t.Errorf("format %q", f)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil || families["go_goroutines"] == nil || families["apiserver_request_total"] == nil {
		h.t.Errorf("%d families, %v:\n%.2000s", len(families), err, body)
	}
	if status, _, _ := get(h, client, "/api/v1/nodes"); status != http.StatusForbidden {
		h.t.Errorf("beside its role: %d", status)
	}
}

func get(h *hub, client *http.Client, path string) (int, http.Header, []byte) {
	h.t.Helper()
	res, err := client.Get(h.config.Host + path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		h.t.Fatal(err)
	}
	return res.StatusCode, res.Header, b.Bytes()
}

// watchList checks that client-go's informers fill themselves from a watch with initial events, and never fall back to a list.
func watchList(h *hub) {
	var lists, watches atomic.Int64
	config := rest.CopyConfig(h.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			q := r.URL.Query()
			switch {
			case q.Get("watch") != "true" && q.Get("watch") != "1":
				lists.Add(1)
			case q.Get("sendInitialEvents") == "true":
				watches.Add(1)
			}
			return next.RoundTrip(r)
		})
	})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		h.t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "first"}}
	if _, err := h.client.CoreV1().Secrets("default").Create(h.t.Context(), secret, metav1.CreateOptions{}); err != nil {
		h.t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	synced := []cache.InformerSynced{
		factory.Core().V1().Secrets().Informer().HasSynced, factory.Apps().V1().Deployments().Informer().HasSynced,
		factory.Rbac().V1().ClusterRoles().Informer().HasSynced,
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer cancel() // before Shutdown, which waits for the informers
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		h.t.Fatal("informers did not fill")
	}
	if _, err := factory.Core().V1().Secrets().Lister().Secrets("default").Get("first"); err != nil {
		h.t.Error(err)
	}
	if lists.Load() != 0 || watches.Load() != int64(len(synced)) {
		h.t.Errorf("%d lists and %d watches with initial events, want none and %d", lists.Load(), watches.Load(), len(synced))
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
