package operators

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// TestSourceController lets Flux' source-controller fetch a chart from a repository, serve it, and remove it with its object.
func TestSourceController(t *testing.T) {
	published(t)
	t.Parallel()
	chart := packed(t, "chart")
	digest := fmt.Sprintf("%x", sha256.Sum256(chart))
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/index.yaml":
			fmt.Fprintf(w, "apiVersion: v1\nentries: {shop: [{apiVersion: v2, name: shop, version: 0.1.0, digest: %s, urls: [shop-0.1.0.tgz]}]}\n", digest)
		case "/shop-0.1.0.tgz":
			_, _ = w.Write(chart) // the test sees what arrives
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(repository.Close)
	h := startHub(t)
	h.definitions("flux", "github.com/fluxcd/source-controller", "config/crd/bases")
	storage := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	h.start("source-controller", toolIn(t, "flux", "source-controller", "github.com/fluxcd/source-controller"),
		"--storage-path", t.TempDir(), "--storage-addr", storage, "--storage-adv-addr", storage,
		"--metrics-addr", fmt.Sprintf("127.0.0.1:%d", freePort(t)), "--health-addr", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	h.apply(`
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmRepository
metadata: {name: charts}
spec: {interval: 1m, url: "` + repository.URL + `"}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: HelmChart
metadata: {name: shop}
spec: {interval: 1m, chart: shop, version: 0.x, sourceRef: {kind: HelmRepository, name: charts}}
`)
	h.eventually("index and chart are fetched", func() error {
		return errors.Join(
			h.is("True", "helmrepository/charts", `{.status.conditions[?(@.type=="Ready")].status}`),
			h.is("True0.1.0", "helmchart/shop", `{.status.conditions[?(@.type=="Ready")].status}{.status.artifact.revision}`))
	})
	h.must("sha256:"+digest, "helmchart/shop", "{.status.artifact.digest}")
	h.must("finalizers.fluxcd.io", "helmchart/shop", "{.metadata.finalizers[0]}")
	if table := h.kubectl("get", "helmcharts"); !strings.Contains(table, "SOURCE KIND") || !strings.Contains(table, "HelmRepository") {
		t.Errorf("columns of its kind: %s", table)
	}
	artifact := h.kubectl("get", "helmchart/shop", "-o", "jsonpath={.status.artifact.url}")
	if status, got := fetch(t, artifact); status != http.StatusOK || !bytes.Equal(got, chart) {
		t.Errorf("%s: status %d, %d bytes of %d", artifact, status, len(got), len(chart))
	}
	h.kubectl("delete", "helmchart/shop", "--timeout=60s") // returns when its finalizer is off
	if status, _ := fetch(t, artifact); status != http.StatusNotFound {
		t.Errorf("%s of an object that is gone: status %d", artifact, status)
	}
	h.kubectl("patch", "helmrepository/charts", "--type=merge", "-p", `{"spec":{"url":"`+repository.URL+`/elsewhere"}}`)
	h.eventually("a change is seen, and what fails is reported", func() error {
		return h.is("FalseTrue", "helmrepository/charts", `{.status.conditions[?(@.type=="Ready")].status}{.status.conditions[?(@.type=="FetchFailed")].status}`)
	})
}

// packed returns a directory below testdata as `helm package` packs it.
func packed(t *testing.T, dir string) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	files := tar.NewWriter(zipped)
	root := os.DirFS("testdata")
	err := fs.WalkDir(root, dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		err = files.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(content))})
		if err == nil {
			_, err = files.Write(content)
		}
		return err
	})
	if err := errors.Join(err, files.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// fetch returns the status and the body of a GET.
func fetch(t *testing.T, url string) (int, []byte) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, b
}
