// Package noderestriction limits what a node may write that uses the API under its own name, as Kubernetes' admission plugin of that
// name does: its own Node without labels that would draw pods to it, mirror pods of its own, the status of its pods, tokens for them.
// hub/auth/node has decided before which objects the node may reach at all; what is written into them is decided here. Texts are
// upstream's.
package noderestriction

import (
	"context"
	"errors"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

// Restriction is the step. It is immutable, and safe for concurrent use.
type Restriction struct {
	objects    control.Reader
	authorizer auth.Authorizer // of audiences that no volume of a pod names; nil: nobody may ask for them
}

// New returns a Restriction that reads pods, nodes and volumes in objects.
func New(objects control.Reader, authorizer auth.Authorizer) *Restriction {
	return &Restriction{objects, authorizer}
}

// Admit refuses what the node may not write. It lets through everything of users who are not nodes.
func (r *Restriction) Admit(ctx context.Context, a *registry.AdmissionRequest) error {
	node, ok := auth.NodeOf(a.User)
	if !ok {
		return nil
	}
	var err error
	switch a.Kind.Resource().String() {
	case "pods":
		err = r.pod(node, a)
	case "nodes":
		err = admitNode(node, a)
	case "persistentvolumeclaims":
		err = admitClaim(node, a)
	case "serviceaccounts":
		err = r.token(ctx, node, a)
	case "leases.coordination.k8s.io":
		err = admitLease(node, a)
	case "csinodes.storage.k8s.io":
		if written(a) != node {
			err = errors.New("can only access CSINode with the same name as the requesting node")
		}
	case "resourceslices.resource.k8s.io":
		err = admitSlice(node, a)
	case "certificatesigningrequests.certificates.k8s.io":
		err = admitSigning(node, a)
	}
	if node == "" {
		err = fmt.Errorf("could not determine node from user %q", a.User.Name)
	}
	var status apierrors.APIStatus
	if err == nil || errors.As(err, &status) {
		return err
	}
	return refuse.Forbidden(a, err)
}

// written returns the name of the object that is written; of a new one it is in the object.
func written(a *registry.AdmissionRequest) string {
	if a.Name == "" && a.Object != nil {
		return a.Object.GetName()
	}
	return a.Name
}

func admitLease(node string, a *registry.AdmissionRequest) error {
	namespace := a.Namespace
	if namespace == "" && a.Object != nil {
		namespace = a.Object.GetNamespace()
	}
	switch {
	case namespace != corev1.NamespaceNodeLease:
		return fmt.Errorf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	case written(a) != node:
		return errors.New("can only access node lease with the same name as the requesting node")
	}
	return nil
}

func admitSlice(node string, a *registry.AdmissionRequest) error {
	of := func(o kube.Object) bool {
		s, ok := o.(*resourcev1.ResourceSlice)
		return ok && s.Spec.NodeName != nil && *s.Spec.NodeName == node
	}
	switch {
	case a.Operation == registry.OpCreate && !of(a.Object):
		return errors.New("can only create ResourceSlice with the same NodeName as the requesting node")
	case a.Operation == registry.OpDelete && !of(a.Old):
		return errors.New("can only delete ResourceSlice with the same NodeName as the requesting node")
	}
	return nil
}

// admitSigning keeps a node from asking for the certificate of another one.
func admitSigning(node string, a *registry.AdmissionRequest) error {
	if a.Operation != registry.OpCreate {
		return nil
	}
	csr, ok := a.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return fmt.Errorf("unexpected type %T", a.Object)
	}
	if csr.Spec.SignerName != certificatesv1.KubeletServingSignerName && csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	name, err := commonName(csr.Spec.Request)
	if err != nil {
		return fmt.Errorf("unable to parse csr: %w", err)
	}
	if name != "system:node:"+node {
		return fmt.Errorf("can only create a node CSR with CN=system:node:%s", node)
	}
	return nil
}
