package crd

import (
	"errors"
	"fmt"
	"slices"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// taken are the names that the definitions of a group have already.
type taken struct{ resources, kinds []string }

// takenIn returns the names that a group's definitions have been given.
func takenIn(group string, all []*apiextensionsv1.CustomResourceDefinition) (t taken) {
	for _, crd := range all {
		if crd.Spec.Group != group {
			continue
		}
		n := crd.Status.AcceptedNames
		t.resources = append(append(t.resources, n.Plural, n.Singular), n.ShortNames...)
		t.kinds = append(t.kinds, n.Kind, n.ListKind)
	}
	return t
}

// fresh returns an error when a definition wants a name that another has.
func fresh(wanted, has string, used []string) error {
	if wanted == has || !slices.Contains(used, wanted) {
		return nil
	}
	return fmt.Errorf("%q is already in use", wanted)
}

// acceptNames returns the names that a definition gets, which are those that it asks for as far as they are free, and whether that is
// all of them.
func acceptNames(crd *apiextensionsv1.CustomResourceDefinition, used taken) (names apiextensionsv1.CustomResourceDefinitionNames, accepted apiextensionsv1.CustomResourceDefinitionCondition) {
	asked := crd.Spec.Names
	names = *crd.Status.AcceptedNames.DeepCopy()
	accepted = apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found",
	}
	refuse := func(what string, err error) {
		accepted.Status, accepted.Reason, accepted.Message = apiextensionsv1.ConditionFalse, what+"Conflict", err.Error()
	}
	for _, n := range []struct {
		what, asked string
		has         *string
		used        []string
	}{
		{"Plural", asked.Plural, &names.Plural, used.resources},
		{"Singular", asked.Singular, &names.Singular, used.resources},
		{"ShortNames", "", nil, nil},
		{"Kind", asked.Kind, &names.Kind, used.kinds},
		{"ListKind", asked.ListKind, &names.ListKind, used.kinds},
	} {
		if n.has == nil {
			if err := freshShortNames(asked.ShortNames, names.ShortNames, used.resources); err != nil {
				refuse(n.what, err)
			} else {
				names.ShortNames = asked.ShortNames
			}
			continue
		}
		if err := fresh(n.asked, *n.has, n.used); err != nil {
			refuse(n.what, err)
		} else {
			*n.has = n.asked
		}
	}
	names.Categories = asked.Categories
	return names, accepted
}

func freshShortNames(wanted, has, used []string) error {
	var errs []error
	for _, name := range wanted {
		if !slices.Contains(has, name) {
			errs = append(errs, fresh(name, "", used))
		}
	}
	if agg := utilerrors.NewAggregate(slices.DeleteFunc(errs, func(err error) bool { return err == nil })); agg != nil {
		return errors.New(agg.Error())
	}
	return nil
}

// established returns the condition of that name once the names are accepted or refused. A definition that was established stays so.
func established(crd *apiextensionsv1.CustomResourceDefinition, accepted apiextensionsv1.CustomResourceDefinitionCondition) apiextensionsv1.CustomResourceDefinitionCondition {
	old := apihelpers.FindCRDCondition(crd, apiextensionsv1.Established)
	c := apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse}
	switch {
	case old != nil && old.Status == apiextensionsv1.ConditionTrue:
		return *old
	case accepted.Status != apiextensionsv1.ConditionTrue:
		c.Reason, c.Message = "NotAccepted", "not all names are accepted"
	case invalidCABundle(crd):
		c.Reason, c.Message = "InvalidCABundle", "The conversion webhook CABundle is invalid"
	default:
		c.Status, c.Reason, c.Message = apiextensionsv1.ConditionTrue, "InitialNamesAccepted", "the initial names have been accepted"
	}
	return c
}
