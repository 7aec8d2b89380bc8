package hub

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"petrel.dev/petrel/internal/memtest"
)

// TestListsOfSealedSecrets checks that lists and watches of encrypted Secrets whose clients read slowly hold little of them in clear, and
// that all of them arrive.
func TestListsOfSealedSecrets(t *testing.T) {
	keyFile := filepath.Join(t.TempDir(), "keys")
	newKey(t, keyFile)
	withHub(t, t.TempDir(), keyFile, func(h *Hub, c kubernetes.Interface) {
		const n, size, open = 24, 1 << 20, 6
		for i := range n {
			if _, err := c.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d", i)}, Data: map[string][]byte{"k": make([]byte, size-1024)},
			}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		config, err := clientcmd.BuildConfigFromFlags("", h.Kubeconfig())
		if err != nil {
			t.Fatal(err)
		}
		config.NextProtos = []string{"http/1.1"} // a connection for each: what a client does not read stays in the kernel
		client, err := rest.HTTPClientFor(config)
		if err != nil {
			t.Fatal(err)
		}
		for _, query := range []string{"", "?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=60"} {
			before := memtest.Live()
			var bodies []io.ReadCloser
			for range open {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+"/api/v1/namespaces/default/secrets"+query, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Accept-Encoding", "identity")
				resp, err := client.Do(req)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("%v, %v", resp, err)
				}
				defer resp.Body.Close()
				bodies = append(bodies, resp.Body)
			}
			if grown := memtest.Live() - before; grown > open*4*size { // of 32 MiB that each has as JSON
				t.Errorf("%q: %d answers hold %d MiB", query, open, grown>>20)
			}
			for _, b := range bodies {
				if got, err := secretsIn(b); got != n || err != nil {
					t.Errorf("%q: %d Secrets, %v", query, got, err)
				}
			}
		}
	})
}

// secretsIn counts the Secrets of a list, or of what a watch begins with.
func secretsIn(answer io.Reader) (n int, err error) {
	for in := json.NewDecoder(answer); ; n++ {
		var event struct {
			Type  string
			Items []struct{}
		}
		switch err := in.Decode(&event); {
		case err != nil:
			return n, err
		case event.Type == "":
			return len(event.Items), nil
		case event.Type == "BOOKMARK":
			return n, nil
		}
	}
}
