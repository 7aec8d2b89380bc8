// Package roleaggregation fills the ClusterRoles that have an aggregation rule with the rules of the ClusterRoles that it
// selects: so a chart or an operator adds rights on its own kinds to admin, edit and view by making a ClusterRole with a label.
package roleaggregation

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

// Name is that of the controller's ServiceAccount and field manager, as on Kubernetes.
const Name = "clusterrole-aggregation-controller"

// Controller keeps the rules of aggregated ClusterRoles.
type Controller struct {
	client control.Client // never nil
	loop   *control.Loop
}

// New returns a controller; Run starts it. client's user must be allowed to escalate ClusterRoles.
func New(client control.Client, log *slog.Logger) *Controller {
	c := &Controller{client: client}
	c.loop = &control.Loop{
		Name: "roleaggregation", Client: client, Reconcile: c.reconcile, Log: log,
		Sources: []control.Source{{GVK: kube.ClusterRole, Keys: func(control.Change) []control.Key { return c.aggregated() }}},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

// aggregated returns the keys of all aggregated roles. Any of them may select a role that changes, and there are few.
func (c *Controller) aggregated() (keys []control.Key) {
	for _, r := range control.List[*rbacv1.ClusterRole](c.client, kube.ClusterRole, "") {
		if r.AggregationRule != nil {
			keys = append(keys, control.KeyOf(r))
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	role, ok := control.Get[*rbacv1.ClusterRole](c.client, kube.ClusterRole, "", key.Name)
	if !ok || role.AggregationRule == nil {
		return 0, nil
	}
	rules, err := gather(role, control.List[*rbacv1.ClusterRole](c.client, kube.ClusterRole, ""))
	if err != nil || equality.Semantic.DeepEqual(rules, role.Rules) {
		return 0, err
	}
	next := role.DeepCopy()
	next.Rules = rules
	_, err = c.client.Update(ctx, next, "")
	return 0, control.IgnoreNotFound(err)
}

// gather returns the rules of all that role selects, by selector, then by name, each rule once. all is in order of names.
func gather(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	rules := []rbacv1.PolicyRule{}
	for i := range role.AggregationRule.ClusterRoleSelectors {
		s, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("read selector %d of ClusterRole %s: %w", i, role.Name, err)
		}
		for _, r := range all {
			if r.Name == role.Name || !s.Matches(labels.Set(r.Labels)) {
				continue
			}
			for _, rule := range r.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}
