package hostile

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"petrel.dev/petrel/test/harness"
)

// size is the number of connections of a flood.
func size() int {
	if Full() {
		return 400
	}
	return 120
}

// hubClient is the administrator's HTTP client, and its TLS configuration for connections made by hand.
func hubClient(t *testing.T, h *harness.Hub) (*http.Client, *tls.Config) {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", h.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tc, err := rest.TLSConfigFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tc.NextProtos = []string{"http/1.1"}
	return c, tc
}

func code(t *testing.T, c *http.Client, method, url, contentType, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// grown reports what the hub's highest memory has become, in MiB, and fails when that is over bound.
func grown(t *testing.T, h *harness.Hub, before harness.Usage, bound int64) {
	t.Helper()
	after := harness.UsageOf(t, h.Cmd.Process.Pid)
	t.Logf("hub: %d MiB before, %d MiB at most, %s of CPU", before.RSS>>10, after.Peak>>10, after.CPU-before.CPU)
	if more := (after.Peak - before.RSS) >> 10; more > bound {
		t.Errorf("the hub grew by %d MiB, bound %d", more, bound)
	}
}

// Row "headers before authentication": strangers who send headers without an end.
func TestHeaderFloods(t *testing.T) {
	h := harness.StartHub(t, harness.Here)
	c, tc := hubClient(t, h)
	before := harness.UsageOf(t, h.Cmd.Process.Pid)
	stranger := &tls.Config{RootCAs: tc.RootCAs, ServerName: tc.ServerName, NextProtos: []string{"http/1.1"}}
	var wg sync.WaitGroup
	for range size() {
		wg.Go(func() {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", h.Address, stranger)
			if err != nil {
				return // turned out
			}
			t.Cleanup(func() { conn.Close() })
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"); err != nil {
				return
			}
			line := "X-Header: " + strings.Repeat("a", 4000) + "\r\n"
			for range 250 { // 1 MB
				if _, err := io.WriteString(conn, line); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	bound := int64(150)
	if !Full() {
		bound = 60 // without bounds 120 of them took 91 MiB
	}
	grown(t, h, before, bound)
	if got, body := code(t, c, "GET", "https://"+h.Address+"/api/v1/namespaces", "", ""); got != 200 {
		t.Errorf("the administrator meanwhile: %d %s", got, body)
	}
}

// Row "slow bodies": one pod's token sends bodies that never come.
func TestSlowBodies(t *testing.T) {
	beside(t)
	h := harness.StartHub(t, harness.Here)
	c, tc := hubClient(t, h)
	h.Eventually(20*time.Second, "the default account", func() error { _, err := h.TryKubectl("get", "serviceaccount", "default"); return err })
	token, err := h.TryKubectl("create", "token", "default")
	if err != nil {
		t.Fatal(err)
	}
	pod := &tls.Config{RootCAs: tc.RootCAs, ServerName: tc.ServerName, NextProtos: []string{"http/1.1"}}
	for _, who := range []struct {
		name, header string
		config       *tls.Config
	}{
		{"a pod", "Authorization: Bearer " + strings.TrimSpace(token) + "\r\n", pod},
		{"a user who may write", "", tc},
	} {
		for range 401 {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", h.Address, who.config)
			if err != nil {
				break
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: hub\r\n%sContent-Type: application/json\r\nContent-Length: 3145728\r\n\r\n{", who.header)
		}
		for _, path := range []string{"/readyz", "/livez", "/healthz"} {
			if got, body := code(t, c, "GET", "https://"+h.Address+path, "", ""); got != 200 {
				t.Errorf("%s: %s answers %d %s", who.name, path, got, body)
			}
		}
		if who.header == "" {
			continue // the same user: its own requests wait for the slow ones to be refused
		}
		if got, body := code(t, c, "GET", "https://"+h.Address+"/api/v1/namespaces", "", ""); got != 200 {
			t.Errorf("%s: another user meanwhile: %d %s", who.name, got, body)
		}
	}
	h.Eventually(40*time.Second, "the slow user is served again", func() error {
		if got, body := code(t, c, "GET", "https://"+h.Address+"/api/v1/namespaces", "", ""); got != 200 {
			return fmt.Errorf("%d %s", got, body)
		}
		return nil
	})
}

// Row "YAML": a body whose parsing takes 200 times its size. The largest that is taken, and one that is refused.
func TestYAMLBombs(t *testing.T) {
	h := harness.StartHub(t, harness.Here)
	c, _ := hubClient(t, h)
	before := harness.UsageOf(t, h.Cmd.Process.Pid)
	url := "https://" + h.Address + "/api/v1/namespaces/default/configmaps"
	bomb := func(n int) string { return "x: [" + strings.Repeat("{},", n/3-2) + "{}]" }
	if got, body := code(t, c, "POST", url, "application/yaml", bomb(3<<20-1000)); got != 413 {
		t.Errorf("3 MiB: %d %.300s", got, body)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { code(t, c, "POST", url, "application/yaml", bomb(500<<10)) })
	}
	wg.Wait()
	grown(t, h, before, 150)
}

// Row "patches": 350 KB of a strategic merge patch on a list as long.
func TestPatchBombs(t *testing.T) {
	h := harness.StartHub(t, harness.Here)
	c, _ := hubClient(t, h)
	var env strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&env, `,{"name":"E%d"}`, i)
	}
	spec := `"spec":{"selector":{"matchLabels":{"a":"b"}},"replicas":0,"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","env":[` + env.String()[1:] + `]}]}}}`
	url := "https://" + h.Address + "/apis/apps/v1/namespaces/default/deployments"
	if got, body := code(t, c, "POST", url, "application/json", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},`+spec+`}`); got != 201 {
		t.Fatalf("%d %.300s", got, body)
	}
	before := harness.UsageOf(t, h.Cmd.Process.Pid)
	got, body := code(t, c, "PATCH", url+"/web?dryRun=All", "application/strategic-merge-patch+json", `{`+spec+`}`)
	if got != 413 || !strings.Contains(body, "comparisons of list entries") {
		t.Errorf("%d %.300s", got, body)
	}
	grown(t, h, before, 150)
}

// Row "SPDY": a data stream of a port-forward without its error stream, with frames of 16 MB that nobody reads. The pod's node is
// connected, and has no pod.
func TestPortForwardFlood(t *testing.T) {
	beside(t)
	h := harness.StartHub(t, harness.Here)
	c, tc := hubClient(t, h)
	h.Eventually(20*time.Second, "the default account", func() error { _, err := h.TryKubectl("get", "serviceaccount", "default"); return err })
	pods := "https://" + h.Address + "/api/v1/namespaces/default/pods"
	if got, body := code(t, c, "POST", pods, "application/json", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"nodeName":"known","containers":[{"name":"c","image":"i"}]}}`); got != 201 {
		t.Fatalf("%d %.300s", got, body)
	}
	knownNode(t, h, t.TempDir(), h.Token())
	before := harness.UsageOf(t, h.Cmd.Process.Pid)
	conn, err := tls.Dial("tcp", h.Address, tc)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /api/v1/namespaces/default/pods/p/portforward HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\nContent-Length: 0\r\n\r\n")
	answer := make([]byte, 0, 4096)
	for !strings.Contains(string(answer), "\r\n\r\n") {
		one := make([]byte, 1)
		if _, err := conn.Read(one); err != nil {
			t.Fatalf("%v: %s", err, answer)
		}
		answer = append(answer, one...)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 101 ") {
		t.Fatalf("%s", answer)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	s, err := spdy.NewClientConnection(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := s.CreateStream(http.Header{"Streamtype": {"data"}, "Port": {"80"}, "Requestid": {"1"}})
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 1<<24-1)
	for range 40 {
		if _, err := stream.Write(frame); err != nil {
			break // the hub does not read what nobody takes
		}
	}
	grown(t, h, before, 100)
}

// Row "what a body takes once it is decoded": a few bytes of a body can be an object of a thousand, and each object breaks rules. One
// request of 3 MiB took the hub 9 GiB and minutes.
func TestBodyBombs(t *testing.T) {
	h := harness.StartHub(t, harness.Here)
	c, _ := hubClient(t, h)
	repeat := func(item string, n int) string { return strings.TrimSuffix(strings.Repeat(item+",", n), ",") }
	whole, most := 1_000_000, 10
	if !Full() {
		whole, most = 200_000, 3
	}
	review := "https://" + h.Address + "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	objects := "https://" + h.Address + "/api/v1/namespaces/default/"
	before := harness.UsageOf(t, h.Cmd.Process.Pid)
	for name, bomb := range map[string]struct {
		url, before, item, after string
		few                      int // so many are let through, and each is refused
	}{
		"containers":   {objects + "pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[`, `{}`, `]}}`, 19_000},
		"finalizers":   {objects + "configmaps", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","finalizers":[`, `""`, `]}}`, 50_000},
		"requirements": {review, `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"fieldSelector":{"requirements":[`, `{}`, `]}}}}`, 45_000},
	} {
		if got, body := code(t, c, "POST", bomb.url, "application/json", bomb.before+repeat(bomb.item, whole)+bomb.after); got != 413 {
			t.Errorf("%s: %d %.200s", name, got, body)
		}
		var wg sync.WaitGroup
		for range most {
			wg.Go(func() {
				got, body := code(t, c, "POST", bomb.url, "application/json", bomb.before+repeat(bomb.item, bomb.few)+bomb.after)
				if got != 422 && got != 429 || len(body) > 1<<20 {
					t.Errorf("%s, as many as are let through: %d, %d bytes: %.200s", name, got, len(body), body)
				}
			})
		}
		wg.Wait()
	}
	grown(t, h, before, 150)
}

// Row "lists in other forms than JSON, or in another version than the store's": each was in memory as a whole, once or more, until its client
// had read it. Twelve of 45 MB took the hub 1.2 GiB.
func TestBuiltLists(t *testing.T) {
	h := harness.StartHub(t, harness.Here)
	c, _ := hubClient(t, h)
	objects, clients := 20, 10
	if Full() {
		objects, clients = 50, 20
	}
	all := "https://" + h.Address + "/api/v1/namespaces/default/configmaps"
	for i := range objects {
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a%d"},"data":{"a":"%s"}}`, i, strings.Repeat("x", 900_000))
		if got, body := code(t, c, "POST", all, "application/json", body); got != 201 {
			t.Fatalf("%d %.200s", got, body)
		}
	}
	before := harness.UsageOf(t, h.Cmd.Process.Pid)
	for _, accept := range []string{"application/vnd.kubernetes.protobuf", "application/cbor", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json"} {
		readAll(t, c, all+"?pretty=true&includeObject=Object", accept, clients, int64(objects)*900_000)
	}
	grown(t, h, before, 150) // the objects alone are 45 MB, and the collector lets the heap double: 21 to 93 were measured
}

// The same row: objects of a definition, listed in the version that is not stored. Their many fields take ten times their bytes once they are decoded.
func TestConvertedLists(t *testing.T) {
	h := harness.StartHub(t, harness.Here)
	c, _ := hubClient(t, h)
	objects, clients := 20, 10
	if Full() {
		objects, clients = 50, 20
	}
	version := func(name string, stored bool) string {
		return fmt.Sprintf(`{"name":%q,"served":true,"storage":%t,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}`, name, stored)
	}
	definition := `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.example.dev"},"spec":{"group":"example.dev","scope":"Namespaced",
		"names":{"plural":"things","singular":"thing","kind":"Thing","listKind":"ThingList"},"versions":[` + version("v1", true) + "," + version("v2", false) + `]}}`
	if got, body := code(t, c, "POST", "https://"+h.Address+"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "application/json", definition); got != 201 {
		t.Fatalf("%d %.200s", got, body)
	}
	all := "https://" + h.Address + "/apis/example.dev/%s/namespaces/default/things"
	h.Eventually(20*time.Second, "things are served", func() error {
		if got, body := code(t, c, "GET", fmt.Sprintf(all, "v2"), "", ""); got != 200 {
			return fmt.Errorf("%d %.200s", got, body)
		}
		return nil
	})
	const fields = 20_000
	var spec strings.Builder
	for i := range fields {
		fmt.Fprintf(&spec, `"field-%05d":{"a":"0123456789"},`, i)
	}
	for i := range objects {
		body := fmt.Sprintf(`{"apiVersion":"example.dev/v1","kind":"Thing","metadata":{"name":"a%d"},"spec":{%s}}`, i, strings.TrimSuffix(spec.String(), ","))
		if got, body := code(t, c, "POST", fmt.Sprintf(all, "v1"), "application/json", body); got != 201 {
			t.Fatalf("%d %.200s", got, body)
		}
	}
	before := harness.UsageOf(t, h.Cmd.Process.Pid)
	for _, accept := range []string{"application/json", "application/json;as=Table;v=v1;g=meta.k8s.io"} {
		readAll(t, c, fmt.Sprintf(all, "v2")+"?includeObject=Object", accept, clients, int64(objects)*int64(spec.Len()))
	}
	grown(t, h, before, 250) // 14 to 46 were measured: the objects are in memory as JSON, and decoded a portion at a time
}

// readAll lets clients read a list of more than size bytes at one time. Each gets all of it, or a 429.
func readAll(t *testing.T, c *http.Client, url, accept string, clients int, size int64) {
	t.Helper()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			req, err := http.NewRequest("GET", url, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Accept", accept)
			resp, err := c.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 429 && n < size {
				t.Errorf("%s: %d, %d bytes: %v", accept, resp.StatusCode, n, err)
			}
		})
	}
	wg.Wait()
}
