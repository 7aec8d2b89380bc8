package cli

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/csaupgrade"
)

// clientSides are the managers of fields that an apply without --server-side has set: ours, and kubectl's, under which the hub also
// records what was applied before it recorded managers.
var clientSides = []string{clientSideManager, "kubectl-client-side-apply"}

// ServerSide are the flags of an apply that the server merges.
type ServerSide struct {
	ServerSide     bool   `name:"server-side" help:"Let the server merge, by who manages which field."`
	ForceConflicts bool   `name:"force-conflicts" help:"With --server-side: take over fields that others manage."`
	FieldManager   string `name:"field-manager" default:"petrel" help:"With --server-side: under which name the fields are managed (${default})." placeholder:"NAME"`
}

// check refuses combinations of flags that mean nothing.
func (f ServerSide) check(dry string) error {
	switch {
	case f.ServerSide && dry == "client":
		return errors.New("--dry-run=client does not work with --server-side, by which the server merges; use --dry-run=server")
	case !f.ServerSide && f.ForceConflicts:
		return errors.New("--force-conflicts only works with --server-side")
	case !f.ServerSide && f.FieldManager != manager:
		return errors.New("--field-manager only works with --server-side")
	}
	return nil
}

// serverSideApply is one manifest on its way to the server.
type serverSideApply struct {
	ServerSide
	objects dynamic.ResourceInterface
	name    string
	dry     bool
}

// applyServerSide has the server merge the object. What client-side apply has set before becomes the manager's own, so that what is no longer in
// the manifest goes.
func (c *conn) applyServerSide(ctx context.Context, m *meta.RESTMapping, ns string, obj *unstructured.Unstructured, f ServerSide, dry bool) (*unstructured.Unstructured, string, error) {
	if obj.GetName() == "" {
		return nil, "", errors.New("apply needs metadata.name; use create for generateName")
	}
	a := serverSideApply{f, c.resource(m, ns), obj.GetName(), dry}
	const verb = "applied on the server"
	now, err := a.send(ctx, obj)
	switch {
	case dry || err != nil && !conflictsWithClientSide(err):
		return now, verb, err
	case err != nil:
		// Before its first apply the server has no managers that could be changed. This one sets nothing.
		bare := &unstructured.Unstructured{Object: map[string]any{"apiVersion": obj.GetAPIVersion(), "kind": obj.GetKind(), "metadata": map[string]any{"name": a.name}}}
		started, bareErr := a.send(ctx, bare)
		if bareErr != nil {
			return nil, "", err
		}
		now = started
	}
	if !slices.ContainsFunc(now.GetManagedFields(), byClientSide) {
		return now, verb, err
	}
	patch, patchErr := csaupgrade.UpgradeManagedFieldsPatch(now, sets.New(clientSides...), a.FieldManager)
	if patchErr != nil || patch == nil {
		return now, verb, errors.Join(err, patchErr)
	}
	if _, err := a.objects.Patch(ctx, a.name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: a.FieldManager}); err != nil {
		return nil, "", err
	}
	now, err = a.send(ctx, obj)
	return now, verb, err
}

func (a serverSideApply) send(ctx context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	body, err := json.Marshal(obj.Object)
	if err != nil {
		return nil, err
	}
	o := metav1.PatchOptions{FieldManager: a.FieldManager, Force: &a.ForceConflicts, FieldValidation: "Strict"}
	if a.dry {
		o.DryRun = []string{metav1.DryRunAll}
	}
	return a.objects.Patch(ctx, a.name, types.ApplyYAMLPatchType, body, o)
}

func byClientSide(e metav1.ManagedFieldsEntry) bool {
	return e.Operation == metav1.ManagedFieldsOperationUpdate && slices.Contains(clientSides, e.Manager)
}

// conflictsWithClientSide reports whether a refusal names fields that client-side apply has set.
func conflictsWithClientSide(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool {
		return slices.ContainsFunc(clientSides, func(m string) bool { return strings.Contains(c.Message, `"`+m+`"`) })
	})
}
