// Package serviceaccount keeps in every namespace what its pods need: the ServiceAccount "default", and the ConfigMap
// "kube-root-ca.crt" by which they trust the hub.
package serviceaccount

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/internal/kube"
)

const (
	accountName = "default"
	// RootCAName is the ConfigMap that projected ServiceAccount volumes take the hub's CA from, under RootCAKey.
	RootCAName  = "kube-root-ca.crt"
	RootCAKey   = "ca.crt"
	description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the " +
		"internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
	descriptionKey = "kubernetes.io/description"
)

// Config is what the controller needs.
type Config struct {
	Client control.Client
	CA     []byte // the hub's CA certificates, PEM
	Log    *slog.Logger
}

// Controller reconciles namespaces. Its fields do not change after New.
type Controller struct {
	client control.Client
	ca     string // the hub's CA certificates, PEM; does not change
	loop   *control.Loop
}

// New returns a controller; Run starts it.
func New(cfg Config) *Controller {
	c := &Controller{client: cfg.Client, ca: string(cfg.CA)}
	named := func(name string) func(control.Change) []control.Key {
		return func(ch control.Change) []control.Key {
			if ch.Object().GetName() != name {
				return nil
			}
			return []control.Key{{Name: ch.Object().GetNamespace()}}
		}
	}
	c.loop = &control.Loop{
		Name: "serviceaccount", Client: cfg.Client, Log: cfg.Log,
		Reconcile: c.reconcile,
		Sources: []control.Source{
			{GVK: kube.Namespace},
			{GVK: kube.ServiceAccount, Keys: named(accountName)},
			{GVK: kube.ConfigMap, Keys: named(RootCAName)},
		},
	}
	return c
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, key control.Key) (time.Duration, error) {
	ns, ok := control.Get[*corev1.Namespace](c.client, kube.Namespace, "", key.Name)
	if !ok || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	// The account last: no pod can be made without one, and a pod that is made mounts the other.
	return 0, control.JoinErrors(c.rootCA(ctx, ns.Name), c.account(ctx, ns.Name))
}

func (c *Controller) account(ctx context.Context, ns string) error {
	if _, ok := c.client.Get(kube.ServiceAccount, ns, accountName); ok {
		return nil
	}
	return harmless(c.client.Create(ctx, &corev1.ServiceAccount{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: accountName},
	}))
}

func (c *Controller) rootCA(ctx context.Context, ns string) error {
	old, ok := control.Get[*corev1.ConfigMap](c.client, kube.ConfigMap, ns, RootCAName)
	if !ok {
		return harmless(c.client.Create(ctx, &corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: RootCAName, Annotations: map[string]string{descriptionKey: description}},
			Data:       map[string]string{RootCAKey: c.ca},
		}))
	}
	if old.DeletionTimestamp != nil || len(old.Data) == 1 && old.Data[RootCAKey] == c.ca && len(old.BinaryData) == 0 && old.Annotations[descriptionKey] == description {
		return nil
	}
	up := old.DeepCopy()
	up.Data, up.BinaryData = map[string]string{RootCAKey: c.ca}, nil
	metav1.SetMetaDataAnnotation(&up.ObjectMeta, descriptionKey, description)
	return harmless(c.client.Update(ctx, up, ""))
}

// harmless returns nil for an error because the object exists already, or because the namespace is being deleted.
func harmless(_ kube.Object, err error) error {
	if apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return control.IgnoreNotFound(err)
}
