// Package serverside applies objects by who manages which field, which the server keeps, and takes over what an apply that the client
// merges has set before.
package serverside

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/csaupgrade"

	"petrel.dev/petrel/internal/cli/clientside"
)

// Manager is the field manager of Petrel's CLI.
const Manager = "petrel"

// clientSides are the managers of fields that an apply without --server-side has set: ours, and kubectl's, under which the hub also
// records what was applied before it recorded managers.
var clientSides = []string{clientside.Manager, "kubectl-client-side-apply"}

// Flags are those of a command that may apply on the server.
type Flags struct {
	ServerSide     bool   `name:"server-side" help:"Let the server merge, by who manages which field."`
	ForceConflicts bool   `name:"force-conflicts" help:"With --server-side: take over fields that others manage."`
	FieldManager   string `name:"field-manager" default:"petrel" help:"With --server-side: under which name the fields are managed (${default})." placeholder:"NAME"`
}

// Check refuses combinations of flags that mean nothing.
func (f Flags) Check(dry string) error {
	switch {
	case f.ServerSide && dry == "client":
		return errors.New("--dry-run=client does not work with --server-side, by which the server merges; use --dry-run=server")
	case !f.ServerSide && f.ForceConflicts:
		return errors.New("--force-conflicts only works with --server-side")
	case !f.ServerSide && f.FieldManager != Manager:
		return errors.New("--field-manager only works with --server-side")
	}
	return nil
}

// target is one object on the server.
type target struct {
	Flags
	objects dynamic.ResourceInterface
	name    string
	dry     bool
}

// Apply has the server merge obj, one of objects. What client-side apply has set before becomes the manager's own, so that what is no
// longer in obj goes. dry: nothing is stored.
func Apply(ctx context.Context, objects dynamic.ResourceInterface, obj *unstructured.Unstructured, f Flags, dry bool) (*unstructured.Unstructured, error) {
	if obj.GetName() == "" {
		return nil, errors.New("apply needs metadata.name; use create for generateName")
	}
	a := target{f, objects, obj.GetName(), dry}
	now, err := a.send(ctx, obj)
	switch {
	case dry || err != nil && !conflictsWithClientSide(err):
		return now, err
	case err != nil:
		started, startErr := a.start(ctx, obj)
		if startErr != nil {
			return nil, err
		}
		now = started
	}
	if !slices.ContainsFunc(now.GetManagedFields(), byClientSide) {
		return now, err
	}
	patch, patchErr := csaupgrade.UpgradeManagedFieldsPatch(now, sets.New(clientSides...), a.FieldManager)
	if patchErr != nil || patch == nil {
		return now, errors.Join(err, patchErr)
	}
	if _, err := a.objects.Patch(ctx, a.name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: a.FieldManager}); err != nil {
		return nil, err
	}
	now, err = a.send(ctx, obj)
	return now, err
}

// start returns the object as it is, with its managers: before the first apply there are none that could be changed.
func (a target) start(ctx context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	live, err := a.objects.Get(ctx, a.name, metav1.GetOptions{})
	if err != nil || len(live.GetManagedFields()) > 0 {
		return live, err
	}
	bare := &unstructured.Unstructured{Object: map[string]any{ // sets nothing
		"apiVersion": obj.GetAPIVersion(), "kind": obj.GetKind(), "metadata": map[string]any{"name": a.name}}}
	return a.send(ctx, bare)
}

func (a target) send(ctx context.Context, obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
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
