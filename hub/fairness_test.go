package hub

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"petrel.dev/petrel/hub/apiserver"
)

// user is a client of one user, who may read. Its connections speak HTTP/1.1, one request each at a time.
type user struct {
	t    *testing.T
	http http.Client
	url  string
	name string
}

// userOf returns a client of the user of that name, "" for the administrator.
func userOf(t *testing.T, config *rest.Config, name string) *user {
	return bufferedUser(t, config, name, 1<<20)
}

// bufferedUser is userOf with connections that hold at most so many bytes that have not been read.
func bufferedUser(t *testing.T, config *rest.Config, name string, buffer int) *user {
	t.Helper()
	c, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	c.NextProtos = []string{"http/1.1"}
	tr := &http.Transport{MaxIdleConnsPerHost: 300, DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return tls.Client(raw, withName(c, addr)), raw.(*net.TCPConn).SetReadBuffer(buffer)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &user{t: t, http: http.Client{Transport: tr}, url: config.Host, name: name}
}

func withName(c *tls.Config, addr string) *tls.Config {
	c = c.Clone()
	c.ServerName, _, _ = net.SplitHostPort(addr)
	return c
}

// get begins a request, whose answer is the caller's to read.
func (u *user) get(ctx context.Context, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url+path, nil)
	if err != nil {
		return nil, err
	}
	if u.name != "" {
		r.Header.Set("Impersonate-User", u.name)
		r.Header.Set("Impersonate-Group", "system:authenticated")
	}
	return u.http.Do(r)
}

// read returns a whole answer. It may be called from any goroutine.
func (u *user) read(path string) (code int, header http.Header, body string) {
	resp, err := u.get(u.t.Context(), path)
	if err != nil {
		u.t.Errorf("%s: %v", u.name, err)
		return 0, nil, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		u.t.Errorf("%s: %v", u.name, err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// metric returns what one reading of /metrics shows of some series, added up; one that is not there is 0.
func (u *user) metric(series ...string) (n int) {
	_, _, text := u.read("/metrics")
	for line := range strings.Lines(text) {
		if name, value, _ := strings.Cut(line, " "); slices.Contains(series, name) {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				u.t.Error(err)
			}
			n += int(f)
		}
	}
	return n
}

// readers gives two users the right to read ConfigMaps, of which it makes a thousand with 8 KB each.
func readers(t *testing.T, admin kubernetes.Interface, names ...string) {
	t.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "readers"},
		Rules: []rbacv1.PolicyRule{{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"configmaps"}}}}
	if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "readers"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "readers"}}
	for _, name := range names {
		binding.Subjects = append(binding.Subjects, rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: name})
	}
	if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 10 {
		wg.Go(func() {
			for i := range 100 {
				cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d-%d", w, i)}, Data: map[string]string{"k": strings.Repeat("x", 8<<10)}}
				if _, err := admin.CoreV1().ConfigMaps("default").Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

const (
	configMaps = "/api/v1/namespaces/default/configmaps"
	greedyness = 200 // requests at one time
	inLevel    = `{flow_schema="global-default",priority_level="global-default"}`
)

// unhurried returns an administrator's client without a limit of its own.
func unhurried(t *testing.T, config *rest.Config) kubernetes.Interface {
	c := rest.CopyConfig(config)
	c.QPS = -1
	return clientOf(t, c)
}

// TestGreedyClientOverHTTP has one user make 200 lists of 8 MB that go on at one time, as they are not read. All seats that it can get are taken, and the
// rest waits. Another user of the same priority level finds seats all the same: each of its requests is answered while not one of the
// greedy user's has ended.
func TestGreedyClientOverHTTP(t *testing.T) {
	// On a slow machine the last of 200 requests comes long after the first has been refused, or has ended, if the hub waits as usual.
	config, stop := runningWith(t, t.TempDir(), apiserver.Limits{Turn: time.Hour, WritePatience: time.Hour})
	defer stop()
	readers(t, unhurried(t, config), "greedy", "other")
	admin, greedy, other := userOf(t, config, ""), bufferedUser(t, config, "greedy", 16<<10), userOf(t, config, "other")
	const executing, waiting = "apiserver_flowcontrol_current_executing_requests" + inLevel, "apiserver_flowcontrol_current_inqueue_requests" + inLevel

	ctx, giveUp := context.WithCancel(t.Context())
	var ended atomic.Int32
	var wg sync.WaitGroup
	list := func() {
		resp, err := greedy.get(ctx, configMaps)
		if err == nil && resp.StatusCode == http.StatusOK {
			<-ctx.Done()
		} else if ctx.Err() == nil {
			ended.Add(1)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
	for come := 0; come < greedyness; {
		for range 10 { // few enough that the lobby of connections, which are all from one address here, ends none for another
			wg.Go(list)
		}
		come += 10
		eventually(t, "the greedy client's requests have not come", func() bool { return admin.metric(executing, waiting)+int(ended.Load()) == come })
	}
	working := admin.metric(executing)
	if seats := admin.metric(`apiserver_flowcontrol_current_executing_seats{priority_level="global-default"}`); seats != 5*working || seats < 50 || seats > 150 {
		t.Errorf("%d lists have %d of 400 seats", working, seats)
	}
	for i := range 50 {
		path := configMaps + "/c0-" + strconv.Itoa(i)
		if i%10 == 0 {
			path = configMaps // as expensive as the greedy client's
		}
		if code, _, body := other.read(path); code != http.StatusOK {
			t.Errorf("request %d: %d %.300s", i, code, body)
		}
	}
	if n := ended.Load(); n != 0 {
		t.Errorf("%d of the greedy client's requests have ended", n)
	}
	if rejected := admin.metric(`apiserver_flowcontrol_rejected_requests_total{flow_schema="global-default",priority_level="global-default",reason="queue-full"}`); rejected != 0 {
		t.Errorf("%d were refused", rejected)
	}
	giveUp()
	wg.Wait()
	eventually(t, "seats are not given back", func() bool { return admin.metric(executing, waiting) == 0 })
}

// TestAnswersShowTheirClass checks the headers of answers of all kinds, and that a FlowSchema counts as soon as its answer has come.
func TestAnswersShowTheirClass(t *testing.T) {
	config, stop := running(t, t.TempDir())
	defer stop()
	api, admin := clientOf(t, config).FlowcontrolV1(), userOf(t, config, "")
	uids := map[string]string{} // names of schemas and levels by UID
	eventually(t, "FlowSchemas have no condition", func() bool {
		list, err := api.FlowSchemas().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list.Items {
			uids[string(f.UID)] = f.Name
		}
		return len(list.Items) == 11 && !slices.ContainsFunc(list.Items, func(f flowcontrolv1.FlowSchema) bool { return len(f.Status.Conditions) != 1 })
	})
	levels, err := api.PriorityLevelConfigurations().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range levels.Items {
		uids[string(l.UID)] = l.Name
	}
	own := levels.Items[slices.IndexFunc(levels.Items, func(l flowcontrolv1.PriorityLevelConfiguration) bool { return l.Name == "workload-low" })]
	own.ObjectMeta = metav1.ObjectMeta{Name: "own"}
	level, err := api.PriorityLevelConfigurations().Create(t.Context(), &own, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	schema, err := api.FlowSchemas().Create(t.Context(), &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Spec: flowcontrolv1.FlowSchemaSpec{
		MatchingPrecedence: 50, PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "own"},
		Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
			Subjects:         []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: "special"}}},
			NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
		}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	uids[string(level.UID)], uids[string(schema.UID)] = "own", "own"
	special, plain := userOf(t, config, "special"), userOf(t, config, "plain")
	eventually(t, "the new FlowSchema does not count", func() bool {
		_, h, _ := special.read("/version")
		return uids[h.Get("X-Kubernetes-PF-FlowSchema-UID")] == "own"
	})
	if n := admin.metric(`apiserver_flowcontrol_nominal_limit_seats{priority_level="own"}`); n != 116 { // 100 of 345 shares of 400
		t.Errorf("the new level has %d seats", n)
	}
	for _, c := range []struct {
		user *user
		path string
		code int
		want string
	}{
		{admin, "/api/v1/namespaces", 200, "exempt exempt"}, {special, "/version", 200, "own own"}, {special, configMaps, 403, "global-default global-default"},
		{plain, "/version", 200, "global-default global-default"}, {plain, configMaps + "?watch=true", 403, "global-default global-default"}, {plain, "/nothing", 403, "global-default global-default"},
		{admin, "/nothing", 404, "exempt exempt"},
	} {
		code, h, _ := c.user.read(c.path)
		got := uids[h.Get("X-Kubernetes-PF-FlowSchema-UID")] + " " + uids[h.Get("X-Kubernetes-PF-PriorityLevel-UID")]
		if code != c.code || got != c.want {
			t.Errorf("%s of %s: %d %s", c.path, c.user.name, code, got)
		}
	}
}
