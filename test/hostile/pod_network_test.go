package hostile

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"petrel.dev/petrel/test/harness"
)

// podPID is a process of a running pod.
func podPID(t *testing.T, h *harness.Hub, pod string) int {
	t.Helper()
	pid := harness.PodProcess(h.Kubectl("get", "pod", pod, "-o", "jsonpath={.metadata.uid}"), "sleep\x00")
	if pid == 0 {
		t.Fatalf("%s has no process", pod)
	}
	return pid
}

// Section "Who may do what": a pod asks the API with its own token, from its own network. Every pod's token was the administrator.
func TestPodToken(t *testing.T) {
	h, _ := podNode(t, "token")
	shellPod(h, "evil", busybox, rest1000)
	h.Running("evil")
	token := h.Kubectl("exec", "evil", "--", "/bin/cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
	env := h.Kubectl("exec", "evil", "--", "/bin/sh", "-c", "echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT")
	pid, address := podPID(t, h, "evil"), strings.TrimSpace(env)
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // whom it asks is not what is tested
		DialContext: func(context.Context, string, string) (c net.Conn, err error) {
			err = harness.InsidePod(pid, func() (err error) { c, err = net.DialTimeout("tcp", address, 10*time.Second); return err })
			return c, err
		}}}
	defer client.CloseIdleConnections()
	ask := func(method, path, body string, headers ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, "https://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		if method == "PATCH" {
			r.Header.Set("Content-Type", "application/merge-patch+json")
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 2000)) // a watch that is let in would not end
		return resp.StatusCode, string(b)
	}
	if got, body := ask("GET", "/api", ""); got != 200 {
		t.Fatalf("discovery: %d %s", got, body)
	}
	refused := func(method, path, body string, headers ...string) {
		t.Helper()
		if got, answer := ask(method, path, body, headers...); got != http.StatusForbidden {
			t.Errorf("%s %s: %d %.200s", method, path, got, answer)
		}
	}
	for _, c := range []struct{ all, one string }{
		{"/api/v1/namespaces/default/secrets", "x"}, {"/api/v1/namespaces/default/pods", "evil"}, {"/api/v1/nodes", "node"},
	} {
		for _, q := range []string{"", "?limit=1", "?watch=true&timeoutSeconds=1"} {
			refused("GET", c.all+q, "")
		}
		refused("POST", c.all+"?dryRun=All", `{"metadata":{"generateName":"x"}}`)
		refused("DELETE", c.all+"?dryRun=All", "")
		refused("GET", c.all+"/"+c.one, "")
		refused("PUT", c.all+"/"+c.one+"?dryRun=All", `{}`)
		refused("PATCH", c.all+"/"+c.one+"?dryRun=All", `{}`)
		refused("DELETE", c.all+"/"+c.one+"?dryRun=All", "")
		refused("GET", c.all, "", "Impersonate-User", "admin", "Impersonate-Group", "system:masters")
	}
	refused("GET", "/api/v1/secrets", "")
	refused("GET", "/api/v1/namespaces/default/pods/evil/log", "")
	refused("POST", "/api/v1/namespaces/default/pods/evil/exec?command=id&stdout=true", "")
	refused("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1"}`)
}

// silentServer answers DNS at a machine's resolver, but nothing for names under slow.
func silentServer(t *testing.T, on harness.Machine) {
	t.Helper()
	b, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut("\n"+string(b), "\nnameserver ")
	if !found {
		t.Skip("this machine has no resolver") // agents read their own from the same file
	}
	address, _, _ := strings.Cut(rest, "\n")
	address = strings.TrimSpace(address)
	if !strings.HasPrefix(address, "127.") {
		if out, err := exec.Command("ip", "-n", on.NS, "addr", "add", address, "dev", "lo").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	var pc net.PacketConn
	on.Inside(t, func() (err error) { pc, err = net.ListenPacket("udp", net.JoinHostPort(address, "53")); return err })
	up := make(chan struct{})
	s := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(up) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		if dns.IsSubDomain("slow.", r.Question[0].Name) {
			return
		}
		m := new(dns.Msg)
		m.SetReply(r)
		rr, _ := dns.NewRR(r.Question[0].Name + " 60 IN A 198.51.100.7")
		m.Answer = []dns.RR{rr}
		_ = w.WriteMsg(m) // who does not get it asks again
	})}
	go func() { _ = s.ActivateAndServe() }()
	<-up
	t.Cleanup(func() { _ = s.Shutdown() })
}

// Row "DNS requests that wait for upstream": a pod asks, as fast as it can, for a name to which upstream is silent. 615 MiB in 1.8 s, once.
func TestPodFloodsDNS(t *testing.T) {
	h, a := podNode(t, "dns")
	silentServer(t, a.On)
	for _, pod := range []string{"evil", "other"} {
		shellPod(h, pod, busybox, rest1000)
		h.Running(pod)
	}
	server := net.JoinHostPort(strings.TrimSpace(h.Kubectl("exec", "evil", "--", "/bin/sh", "-c", "grep nameserver /etc/resolv.conf | while read a b; do echo $b; done")), "53")
	otherPID := podPID(t, h, "other")
	resolve := func(name string) error {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		var r *dns.Msg
		err := harness.InsidePod(otherPID, func() (err error) {
			r, _, err = (&dns.Client{Timeout: 2 * time.Second}).Exchange(m, server)
			return err
		})
		if err == nil && len(r.Answer) == 0 {
			err = fmt.Errorf("%s: no answer but %s", name, dns.RcodeToString[r.Rcode])
		}
		return err
	}
	all := func() error {
		return errors.Join(resolve("kubernetes.default.svc.cluster.local."), resolve(fmt.Sprintf("www%d.example.org.", time.Now().UnixNano())))
	}
	h.Eventually(20*time.Second, "names resolve", all)
	questions := 20_000
	if Full() {
		questions = 166_000
	}
	before := harness.UsageOf(t, a.Cmd.Process.Pid)
	var c net.Conn
	if err := harness.InsidePod(podPID(t, h, "evil"), func() (err error) { c, err = net.Dial("udp", server); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := new(dns.Msg)
	m.SetQuestion("one.slow.", dns.TypeA)
	most := before.RSS
	for i := range questions {
		if i%(questions/20) == 0 {
			most = max(most, harness.UsageOf(t, a.Cmd.Process.Pid).RSS)
		}
		m.Id = uint16(i)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(b) // what the kernel does not take is lost, as in any flood
		if i == questions/2 {
			h.Eventually(10*time.Second, "another pod's names resolve meanwhile", all)
		}
	}
	most = max(most, harness.UsageOf(t, a.Cmd.Process.Pid).RSS)
	h.Eventually(10*time.Second, "another pod's names resolve afterwards", all)
	t.Logf("%d questions: agent %d MiB before, %d MiB at most", questions, before.RSS>>10, most>>10)
	if grown := (most - before.RSS) >> 10; grown > 30 {
		t.Errorf("the agent grew by %d MiB", grown)
	}
	alive(t, a, 300)
}
