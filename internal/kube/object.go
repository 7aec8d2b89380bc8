// Package kube is the small vocabulary that the whole house shares about Kubernetes objects: what an object is, the
// group-version-kinds that Petrel's own code names, the well-known labels, annotations and taints of Petrel, and the
// rules that hub, scheduler and node must answer alike: about a pod's resources, and about when a condition has changed. It
// holds no behaviour of any component.
package kube

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is any stored API object: typed, in the version that it is stored in.
type Object interface {
	runtime.Object
	metav1.Object
}

// The kinds that Petrel's own controllers, scheduler and dispatcher read and write.
var (
	Pod                     = corev1.SchemeGroupVersion.WithKind("Pod")
	Binding                 = corev1.SchemeGroupVersion.WithKind("Binding")
	Node                    = corev1.SchemeGroupVersion.WithKind("Node")
	Namespace               = corev1.SchemeGroupVersion.WithKind("Namespace")
	Service                 = corev1.SchemeGroupVersion.WithKind("Service")
	Endpoints               = corev1.SchemeGroupVersion.WithKind("Endpoints")
	ConfigMap               = corev1.SchemeGroupVersion.WithKind("ConfigMap")
	Secret                  = corev1.SchemeGroupVersion.WithKind("Secret")
	ServiceAccount          = corev1.SchemeGroupVersion.WithKind("ServiceAccount")
	ComponentStatus         = corev1.SchemeGroupVersion.WithKind("ComponentStatus")
	Event                   = corev1.SchemeGroupVersion.WithKind("Event")
	Deployment              = appsv1.SchemeGroupVersion.WithKind("Deployment")
	ReplicaSet              = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
	DaemonSet               = appsv1.SchemeGroupVersion.WithKind("DaemonSet")
	StatefulSet             = appsv1.SchemeGroupVersion.WithKind("StatefulSet")
	ControllerRevision      = appsv1.SchemeGroupVersion.WithKind("ControllerRevision")
	ReplicationController   = corev1.SchemeGroupVersion.WithKind("ReplicationController")
	Job                     = batchv1.SchemeGroupVersion.WithKind("Job")
	CronJob                 = batchv1.SchemeGroupVersion.WithKind("CronJob")
	HorizontalPodAutoscaler = autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")
	EndpointSlice           = discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice")
	Lease                   = coordinationv1.SchemeGroupVersion.WithKind("Lease")
	PriorityClass           = schedulingv1.SchemeGroupVersion.WithKind("PriorityClass")
	IPAddress               = networkingv1.SchemeGroupVersion.WithKind("IPAddress")
	ServiceCIDR             = networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR")
	RuntimeClass            = nodev1.SchemeGroupVersion.WithKind("RuntimeClass")

	CustomResourceDefinition  = GVK{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
	CertificateSigningRequest = certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest")

	PersistentVolume      = corev1.SchemeGroupVersion.WithKind("PersistentVolume")
	PersistentVolumeClaim = corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")
	VolumeAttachment      = storagev1.SchemeGroupVersion.WithKind("VolumeAttachment")
	CSIDriver             = storagev1.SchemeGroupVersion.WithKind("CSIDriver")
	ResourceSlice         = resourcev1.SchemeGroupVersion.WithKind("ResourceSlice")

	FlowSchema                 = flowcontrolv1.SchemeGroupVersion.WithKind("FlowSchema")
	PriorityLevelConfiguration = flowcontrolv1.SchemeGroupVersion.WithKind("PriorityLevelConfiguration")

	Role               = rbacv1.SchemeGroupVersion.WithKind("Role")
	ClusterRole        = rbacv1.SchemeGroupVersion.WithKind("ClusterRole")
	RoleBinding        = rbacv1.SchemeGroupVersion.WithKind("RoleBinding")
	ClusterRoleBinding = rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding")
)

// What configures admission.
var (
	MutatingWebhookConfiguration     = admissionregistrationv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration")
	ValidatingWebhookConfiguration   = admissionregistrationv1.SchemeGroupVersion.WithKind("ValidatingWebhookConfiguration")
	ValidatingAdmissionPolicy        = admissionregistrationv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicy")
	ValidatingAdmissionPolicyBinding = admissionregistrationv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicyBinding")
	MutatingAdmissionPolicy          = admissionregistrationv1.SchemeGroupVersion.WithKind("MutatingAdmissionPolicy")
	MutatingAdmissionPolicyBinding   = admissionregistrationv1.SchemeGroupVersion.WithKind("MutatingAdmissionPolicyBinding")
)

// Reviews are questions about who asks and what they may do. They are answered at once, and never stored.
var (
	TokenReview              = authenticationv1.SchemeGroupVersion.WithKind("TokenReview")
	SelfSubjectReview        = authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview")
	SubjectAccessReview      = authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview")
	LocalSubjectAccessReview = authorizationv1.SchemeGroupVersion.WithKind("LocalSubjectAccessReview")
	SelfSubjectAccessReview  = authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectAccessReview")
	SelfSubjectRulesReview   = authorizationv1.SchemeGroupVersion.WithKind("SelfSubjectRulesReview")
)

// GVK is short for the type that names a kind everywhere in Petrel.
type GVK = schema.GroupVersionKind
