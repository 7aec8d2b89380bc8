package widgets

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// Run runs the operator until ctx is done, once it leads. Its webhooks are served on a port of loopback, with the certificate in certDir.
func Run(ctx context.Context, config *rest.Config, certDir string, port int) error {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	AddToScheme(scheme)
	m, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		LeaderElection:                true,
		LeaderElectionID:              "widgets",
		LeaderElectionNamespace:       "default",
		LeaderElectionReleaseOnCancel: true,
		WebhookServer:                 webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: certDir}),
	})
	if err != nil {
		return fmt.Errorf("manager: %w", err)
	}
	if err := ctrl.NewWebhookManagedBy(m, &Widget{}).WithDefaulter(rules{}).WithValidator(rules{}).Complete(); err != nil {
		return fmt.Errorf("webhooks: %w", err)
	}
	r := &reconciler{m.GetClient()}
	if err := ctrl.NewControllerManagedBy(m).For(&Widget{}).Owns(&corev1.ConfigMap{}).Complete(r); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	return m.Start(ctx)
}

// rules are what the two admission webhooks do.
type rules struct{}

// Default paints a widget that has no color.
func (rules) Default(_ context.Context, w *Widget) error {
	if w.Spec.Color == "" {
		w.Spec.Color = "grey"
	}
	return nil
}

// ValidateCreate refuses a widget without an area.
func (rules) ValidateCreate(_ context.Context, w *Widget) (admission.Warnings, error) {
	if w.Spec.Width*w.Spec.Height <= 0 {
		return nil, errors.New("a widget has an area")
	}
	return nil, nil
}

// ValidateUpdate refuses another color.
func (r rules) ValidateUpdate(ctx context.Context, old, w *Widget) (admission.Warnings, error) {
	if old.Spec.Color != w.Spec.Color {
		return nil, errors.New("a widget keeps its color")
	}
	return r.ValidateCreate(ctx, w)
}

// ValidateDelete warns.
func (rules) ValidateDelete(_ context.Context, w *Widget) (admission.Warnings, error) {
	return admission.Warnings{"widget " + w.Name + " will be missed"}, nil
}

// reconciler keeps a ConfigMap for each widget, and reports the area.
type reconciler struct{ client.Client }

// Reconcile applies what a widget should have.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	w := &Widget{}
	if err := r.Get(ctx, req.NamespacedName, w); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	area := w.Spec.Width * w.Spec.Height
	owner := metav1apply.OwnerReference().WithAPIVersion(V1.String()).WithKind("Widget").WithName(w.Name).WithUID(w.UID).WithController(true)
	data := corev1apply.ConfigMap("widget-"+w.Name, w.Namespace).WithOwnerReferences(owner).
		WithData(map[string]string{"area": strconv.Itoa(area), "color": w.Spec.Color})
	if err := r.Apply(ctx, data, client.FieldOwner("widgets"), client.ForceOwnership); err != nil {
		return ctrl.Result{}, fmt.Errorf("apply ConfigMap: %w", err)
	}
	if w.Status.Area == area && w.Status.ObservedGeneration == w.Generation {
		return ctrl.Result{}, nil
	}
	before := w.DeepCopyObject().(*Widget)
	w.Status = WidgetStatus{Area: area, ObservedGeneration: w.Generation}
	return ctrl.Result{}, r.Status().Patch(ctx, w, client.MergeFrom(before))
}
