package admission

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// own are the namespaces that the hub makes when it starts for the first time.
var own = map[string]bool{
	metav1.NamespaceDefault: true, metav1.NamespaceSystem: true, metav1.NamespacePublic: true, corev1.NamespaceNodeLease: true,
}

// immortal namespaces are never deleted: they have the hub's own objects.
var immortal = map[string]bool{metav1.NamespaceDefault: true, metav1.NamespaceSystem: true, metav1.NamespacePublic: true}

// namespaces refuses new objects in a namespace that does not exist or is being deleted.
type namespaces struct{ objects Objects }

// enters reports whether a puts an object into a namespace. A review does not: what may be done in a namespace can be asked
// before it exists.
func enters(a *registry.AdmissionRequest) bool {
	k := a.Target.Kind
	return a.Operation == registry.OpCreate && k.Namespaced && !k.Virtual() && a.Target.Subresource == ""
}

// admit refuses to delete an immortal namespace, and to create objects in a namespace that does not exist or ends.
func (n *namespaces) admit(ctx context.Context, a *registry.AdmissionRequest) error {
	if a.Target.Kind.GVK == kube.Namespace {
		if a.Operation == registry.OpDelete && a.Target.Subresource == "" && immortal[a.Old.GetName()] {
			return apierrors.NewForbidden(a.Target.Kind.Resource(), a.Old.GetName(), errors.New("this namespace may not be deleted"))
		}
		return nil
	}
	if !enters(a) {
		return nil
	}
	name := a.Object.GetNamespace()
	ns, ok := control.Get[*corev1.Namespace](n.objects, kube.Namespace, "", name)
	if !ok && own[name] {
		ns, ok = await[*corev1.Namespace](ctx, n.objects, kube.Namespace, "", name)
	}
	if !ok {
		return apierrors.NewNotFound(corev1.Resource("namespaces"), name)
	}
	if ns.Status.Phase != corev1.NamespaceTerminating {
		return nil
	}
	err := refuse.Forbidden(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", name))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: fmt.Sprintf("namespace %s is being terminated", name),
		Field:   "metadata.namespace",
	})
	return err
}
