package hub

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"petrel.dev/petrel/hub/apiserver"
)

// running starts a hub on dir, and returns the administrator's configuration. stop ends it.
func running(t *testing.T, dir string) (config *rest.Config, stop func()) {
	t.Helper()
	return runningWith(t, dir, apiserver.Limits{})
}

// runningWith is running, with other limits of the API.
func runningWith(t *testing.T, dir string, limits apiserver.Limits) (config *rest.Config, stop func()) {
	t.Helper()
	h, err := New(t.Context(), Config{
		DataDir: dir, Listen: "127.0.0.1:0", Domain: "cluster.local", Log: slog.New(slog.DiscardHandler),
		ClusterCIDR: netip.MustParsePrefix("10.162.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.163.0.0/16"),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.apiLimits = limits
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if config, err = clientcmd.BuildConfigFromFlags("", h.Kubeconfig()); err != nil {
		stop()
		t.Fatal(err)
	}
	return config, stop
}

func clientOf(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually waits until is returns true, for what controllers do.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// TestRightsOfAWholeHub follows a pod's token through a hub: no right, a right with the very next request after its binding, a watch
// that ends with the pod. A node of the API may read the pod's Secret, and nothing of others.
func TestRightsOfAWholeHub(t *testing.T) {
	config, stop := running(t, t.TempDir())
	defer stop()
	ctx, admin := t.Context(), clientOf(t, config)
	eventually(t, "the role edit has not got its rules", func() bool {
		r, err := admin.RbacV1().ClusterRoles().Get(ctx, "edit", metav1.GetOptions{})
		return err == nil && len(r.Rules) > 10
	})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{NodeName: "pi-1", Containers: []corev1.Container{{
		Name: "c", Image: "i", EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "mine"}}}},
	}}}}
	pod, err := admin.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mine", "other"} {
		if _, err := admin.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	issued, err := admin.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "web", UID: pod.UID},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	inPod := rest.AnonymousClientConfig(config)
	inPod.BearerToken = issued.Status.Token
	robot := clientOf(t, inPod)
	if _, err := robot.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("without a role: %v", err)
	}
	if _, err := admin.RbacV1().RoleBindings("default").Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "robot"}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "edit"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "default"}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := robot.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("with a role: %v", err)
	}
	review, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:serviceaccount:default:default", ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "default", Verb: "create", Resource: "pods"},
	}}, metav1.CreateOptions{})
	if want := `RBAC: allowed by RoleBinding "robot/default" of ClusterRole "edit" to ServiceAccount "default/default"`; err != nil || !review.Status.Allowed || review.Status.Reason != want {
		t.Errorf("%+v, %v", review, err)
	}
	watch, err := robot.CoreV1().Secrets("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()

	asNode := rest.CopyConfig(config)
	asNode.Impersonate = rest.ImpersonationConfig{UserName: "system:node:pi-1", Groups: []string{"system:nodes"}}
	node := clientOf(t, asNode)
	if _, err := node.CoreV1().Secrets("default").Get(ctx, "mine", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := node.CoreV1().Secrets("default").Get(ctx, "other", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("another pod's Secret: %v", err)
	}
	if _, err := node.CoreV1().Pods("default").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: pod.Spec}, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a node makes a pod: %v", err)
	}

	now := int64(0)
	if err := admin.CoreV1().Pods("default").Delete(ctx, "web", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	ended := time.After(time.Minute)
	for open := true; open; {
		select {
		case _, open = <-watch.ResultChan():
		case <-ended:
			t.Fatal("the watch of a pod that is gone goes on")
		}
	}
	if _, err := robot.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("the token of a pod that is gone: %v", err)
	}
}

// aggregated reports whether there are roles that collect the rules of others, and each has all of them.
func aggregated(t *testing.T, roles []rbacv1.ClusterRole) bool {
	t.Helper()
	some := false
	for _, r := range roles {
		if r.AggregationRule == nil {
			continue
		}
		some = true
		for i := range r.AggregationRule.ClusterRoleSelectors {
			s, err := metav1.LabelSelectorAsSelector(&r.AggregationRule.ClusterRoleSelectors[i])
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range roles {
				for _, rule := range part.Rules {
					has := func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }
					if part.Name != r.Name && s.Matches(labels.Set(part.Labels)) && !slices.ContainsFunc(r.Rules, has) {
						return false
					}
				}
			}
		}
	}
	return some
}

// TestRolesAreWrittenOnce checks that a hub that starts again finds all roles as they should be, and writes nothing.
func TestRolesAreWrittenOnce(t *testing.T) {
	dir := t.TempDir()
	revision := func() string {
		config, stop := running(t, dir)
		defer stop()
		admin, last := clientOf(t, config), ""
		eventually(t, "the hub goes on writing roles", func() bool {
			list, err := admin.RbacV1().ClusterRoles().List(t.Context(), metav1.ListOptions{})
			if err != nil {
				return false
			}
			newest := ""
			for _, r := range list.Items {
				if len(r.ResourceVersion) > len(newest) || len(r.ResourceVersion) == len(newest) && r.ResourceVersion > newest {
					newest = r.ResourceVersion
				}
			}
			settled := newest == last && aggregated(t, list.Items)
			last = newest
			if !settled {
				time.Sleep(300 * time.Millisecond)
			}
			return settled
		})
		return last
	}
	if first, second := revision(), revision(); first != second {
		t.Errorf("the newest role is of revision %s, and %s after a start", first, second)
	}
}
