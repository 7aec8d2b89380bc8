package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/rand"

	"petrel.dev/petrel/hub/admission/refuse"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/registry"
	"petrel.dev/petrel/internal/kube"
)

const (
	defaultAccount = "default"
	tokenVolume    = "kube-api-access-"
	tokenPath      = "/var/run/secrets/kubernetes.io/serviceaccount"
	// tokenSeconds is upstream's hour and seven seconds, by which tokens of this volume can be distinguished from others.
	tokenSeconds = 3607

	mirrorPod        = "kubernetes.io/config.mirror"
	mountableSecrets = "kubernetes.io/enforce-mountable-secrets"

	ephemeralContainers = "ephemeralcontainers" // the subresource of pods
)

// accounts gives each pod the ServiceAccount that it runs as, and that account's token.
type accounts struct{ objects Objects }

// assign sets a new pod's account, and mounts the account's token if the pod wants it. An account that does not exist refuses the
// pod.
func (s *accounts) assign(ctx context.Context, a *registry.AdmissionRequest, pod *corev1.Pod) error {
	if a.Operation != registry.OpCreate {
		return nil
	}
	if _, ok := pod.Annotations[mirrorPod]; ok {
		return refuseMirror(a, pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = pod.Spec.DeprecatedServiceAccount
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	sa, ok := s.find(pod)
	if !ok && pod.Spec.ServiceAccountName == defaultAccount {
		sa, ok = await[*corev1.ServiceAccount](ctx, s.objects, kube.ServiceAccount, pod.Namespace, pod.Spec.ServiceAccountName)
	}
	if !ok {
		return refuse.Forbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", pod.Namespace, pod.Spec.ServiceAccountName,
			apierrors.NewNotFound(corev1.Resource("serviceaccount"), pod.Spec.ServiceAccountName)))
	}
	if wantsToken(sa, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(sa.ImagePullSecrets)
	}
	return nil
}

// find returns the account that the pod names.
func (s *accounts) find(pod *corev1.Pod) (sa *corev1.ServiceAccount, ok bool) {
	return control.Get[*corev1.ServiceAccount](s.objects, kube.ServiceAccount, pod.Namespace, pod.Spec.ServiceAccountName)
}

// refuseMirror refuses a mirror pod that refers to objects of the API: it runs without the hub.
func refuseMirror(a *registry.AdmissionRequest, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return refuse.Forbidden(a, errors.New("a mirror pod may not reference service accounts"))
	}
	if used := secretUses(pod); len(used) > 0 || len(pod.Spec.ImagePullSecrets) > 0 {
		return refuse.Forbidden(a, errors.New("a mirror pod may not reference secrets"))
	}
	return nil
}

// wantsToken reports whether the pod gets a token; the pod's setting comes before the account's.
func wantsToken(sa *corev1.ServiceAccount, pod *corev1.Pod) bool {
	for _, says := range []*bool{pod.Spec.AutomountServiceAccountToken, sa.AutomountServiceAccountToken} {
		if says != nil {
			return *says
		}
	}
	return true
}

// mountToken gives every container that has nothing at the token's path the token volume, and makes that volume unless
// the pod brought its own.
func mountToken(pod *corev1.Pod) {
	name := tokenVolume + rand.String(5)
	brought := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, tokenVolume) })
	if brought >= 0 {
		name = pod.Spec.Volumes[brought].Name
	}
	mounted := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenPath }) {
				continue
			}
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenPath})
			mounted = true
		}
	}
	if mounted && brought < 0 {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: tokenSource()}})
	}
}

// tokenSource returns the volume with token, CA and namespace that client libraries read in a pod.
func tokenSource() *corev1.ProjectedVolumeSource {
	mode, seconds := corev1.ProjectedVolumeSourceDefaultMode, int64(tokenSeconds)
	return &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path:     "namespace",
				FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}
}

// limitSecrets holds a pod to the secrets that its account lists, when the account asks for that.
func (s *accounts) limitSecrets(_ context.Context, a *registry.AdmissionRequest, pod *corev1.Pod) error {
	added := a.Operation == registry.OpUpdate && a.Target.Subresource == ephemeralContainers
	if a.Operation != registry.OpCreate && !added || pod.Spec.ServiceAccountName == "" {
		return nil
	}
	sa, ok := s.find(pod)
	switch {
	case !ok && added:
		return refuse.Forbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", pod.Namespace, pod.Spec.ServiceAccountName,
			apierrors.NewNotFound(corev1.Resource("serviceaccount"), pod.Spec.ServiceAccountName)))
	case !ok:
		return nil // assign found it, so it has just been deleted
	}
	if enforced, _ := strconv.ParseBool(sa.Annotations[mountableSecrets]); !enforced {
		return nil
	}
	uses := secretUses(pod)
	if added { // the others were let in with the pod
		uses = ephemeralSecretUses(pod)
	}
	for _, use := range uses {
		if !slices.ContainsFunc(sa.Secrets, func(r corev1.ObjectReference) bool { return r.Name == use.secret }) {
			return refuse.Forbidden(a, fmt.Errorf("%s secret.secretName=%q is not allowed because service account %s does not reference that secret",
				use.by, use.secret, sa.Name))
		}
	}
	for i, pull := range pod.Spec.ImagePullSecrets {
		if !added && !slices.Contains(sa.ImagePullSecrets, pull) {
			return refuse.Forbidden(a, fmt.Errorf("imagePullSecrets[%d].name=%q is not allowed because service account %s does not reference that imagePullSecret",
				i, pull.Name, sa.Name))
		}
	}
	return nil
}

// secretUse is a secret that a pod reads, and how, for the text of a refusal.
type secretUse struct{ by, secret string }

// secretUses returns every use of a secret by volumes and by the environment of containers.
func secretUses(pod *corev1.Pod) []secretUse {
	var uses []secretUse
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil {
			uses = append(uses, secretUse{"volume with", v.Secret.SecretName})
		}
	}
	for i := range pod.Spec.InitContainers {
		uses = append(uses, environmentUses("init container", &pod.Spec.InitContainers[i])...)
	}
	for i := range pod.Spec.Containers {
		uses = append(uses, environmentUses("container", &pod.Spec.Containers[i])...)
	}
	return uses
}

// ephemeralSecretUses returns every use of a secret by ephemeral containers.
func ephemeralSecretUses(pod *corev1.Pod) []secretUse {
	var uses []secretUse
	for i := range pod.Spec.EphemeralContainers {
		uses = append(uses, environmentUses("ephemeral container", (*corev1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))...)
	}
	return uses
}

// environmentUses returns every use of a secret by the environment of a container. what is the kind of container.
func environmentUses(what string, c *corev1.Container) []secretUse {
	var uses []secretUse
	for _, env := range c.Env {
		if env.ValueFrom != nil && env.ValueFrom.SecretKeyRef != nil {
			uses = append(uses, secretUse{fmt.Sprintf("%s %s with envVar %s referencing", what, c.Name, env.Name), env.ValueFrom.SecretKeyRef.Name})
		}
	}
	for _, from := range c.EnvFrom {
		if from.SecretRef != nil {
			uses = append(uses, secretUse{fmt.Sprintf("%s %s with envFrom referencing", what, c.Name), from.SecretRef.Name})
		}
	}
	return uses
}
