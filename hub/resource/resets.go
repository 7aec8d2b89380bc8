package resource

import "k8s.io/apimachinery/pkg/runtime/schema"

// resets has the kinds, and their subresources, that reset other fields than Resets says of all.
var resets = map[schema.GroupKind]map[string][][]string{
	{Kind: "Namespace"}:                 {"finalize": {{"status"}}},
	{Kind: "Pod"}:                       {"status": {{"spec"}, {"metadata", "deletionTimestamp"}, {"metadata", "ownerReferences"}}},
	{Group: "apps", Kind: "Deployment"}: {"status": {{"spec"}, {"metadata", "labels"}}},
	{Group: "certificates.k8s.io", Kind: "CertificateSigningRequest"}: {"": {{"spec"}, {"status"}},
		"status": {{"spec"}, {"status", "conditions"}}, "approval": {{"spec"}, {"status", "certificate"}}},
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"}:  statusOnly,
	{Group: "apiregistration.k8s.io", Kind: "APIService"}:                       statusOnly,
	{Group: "flowcontrol.apiserver.k8s.io", Kind: "FlowSchema"}:                 statusOnly,
	{Group: "flowcontrol.apiserver.k8s.io", Kind: "PriorityLevelConfiguration"}: statusOnly,
	{Group: "networking.k8s.io", Kind: "ServiceCIDR"}:                           statusOnly,
	{Group: "resource.k8s.io", Kind: "ResourceClaim"}:                           statusOnly,
	{Group: "storage.k8s.io", Kind: "VolumeAttachment"}:                         statusOnly,
	{Group: "storagemigration.k8s.io", Kind: "StorageVersionMigration"}:         statusOnly,
}

// statusOnly is of kinds whose status is written without their metadata.
var statusOnly = map[string][][]string{"status": {{"metadata"}, {"spec"}}}

// Resets returns the paths of the fields that writes to the kind, or to a subresource of it, put back to what they were: nobody
// becomes their manager there. A write of the object resets its status when that has a subresource, and a write of the status the rest.
// It is upstream's GetResetFields.
func (k *Kind) Resets(subresource string) [][]string {
	if paths, ok := resets[k.GVK.GroupKind()][subresource]; ok {
		return paths
	}
	if s := k.Subresources[subresource]; s != nil && s.Resets != nil {
		return s.Resets
	}
	switch {
	case subresource == "status" && k.Unstructured():
		return statusOnly["status"]
	case subresource == "status":
		return [][]string{{"spec"}}
	case subresource == "" && k.Working().Subresources["status"] != nil:
		return [][]string{{"status"}}
	}
	return nil
}
