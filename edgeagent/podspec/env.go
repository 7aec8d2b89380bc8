package podspec

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/downward"
	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/svcproxy"
)

// environment assembles the attempt's environment: Services first, then envFrom, then env, later ones winning; $(NAME)
// in env refers to what came before. An error becomes the message of CreateContainerConfigError.
func (n Node) environment(a Attempt) (map[string]string, []string, error) {
	pod, set := a.Pod, a.Set
	vars := map[string]string{}
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		for _, s := range set.Services {
			if s.Namespace == pod.Namespace {
				serviceEnv(vars, s)
			}
		}
	}
	for _, s := range set.Services {
		if s.Namespace == corev1.NamespaceDefault && s.Name == "kubernetes" {
			serviceEnv(vars, s)
		}
	}
	var skipped []string
	for _, from := range a.Container.EnvFrom {
		data, err := envFrom(pod.Namespace, from, set)
		if err != nil {
			return nil, nil, err
		}
		for k, v := range data {
			k = from.Prefix + k
			if len(validation.IsRelaxedEnvVarName(k)) > 0 {
				skipped = append(skipped, k)
				continue
			}
			vars[k] = v
		}
	}
	for _, e := range a.Container.Env {
		v, ok, err := n.envValue(a, e, vars)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			vars[e.Name] = v
		}
	}
	sort.Strings(skipped)
	return vars, skipped, nil
}

// envFrom returns the variables of a whole ConfigMap or Secret. Values that are no UTF-8 pass as they are, as with kubelet.
func envFrom(namespace string, from corev1.EnvFromSource, set *desired.Set) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		cm := set.ConfigMap(namespace, from.ConfigMapRef.Name)
		if cm == nil {
			if isTrue(from.ConfigMapRef.Optional) {
				return nil, nil
			}
			return nil, fmt.Errorf("configmap %q not found", from.ConfigMapRef.Name)
		}
		return cm.Data, nil
	case from.SecretRef != nil:
		sec := set.Secret(namespace, from.SecretRef.Name)
		if sec == nil {
			if isTrue(from.SecretRef.Optional) {
				return nil, nil
			}
			return nil, fmt.Errorf("secret %q not found", from.SecretRef.Name)
		}
		out := make(map[string]string, len(sec.Data))
		for k, v := range sec.Data {
			out[k] = string(v)
		}
		return out, nil
	}
	return nil, nil
}

// envValue is the value of one env entry; false: an optional source has none.
func (n Node) envValue(a Attempt, e corev1.EnvVar, vars map[string]string) (string, bool, error) {
	pod, c, set := a.Pod, a.Container, a.Set
	from := e.ValueFrom
	if from == nil {
		return expand(e.Value, vars), true, nil
	}
	switch {
	case from.FieldRef != nil:
		v, err := n.field(a, from.FieldRef.FieldPath)
		return v, true, err
	case from.ResourceFieldRef != nil:
		target := c
		if name := from.ResourceFieldRef.ContainerName; name != "" && name != c.Name {
			if target = kube.ContainerNamed(pod, name); target == nil {
				return "", false, fmt.Errorf("env %s: the pod has no container %q", e.Name, name)
			}
		}
		v, err := downward.ResourceField(from.ResourceFieldRef, pod, target, n.Allocatable)
		return v, true, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		cm := set.ConfigMap(pod.Namespace, r.Name)
		if cm == nil {
			if isTrue(r.Optional) {
				return "", false, nil
			}
			return "", false, fmt.Errorf("configmap %q not found", r.Name)
		}
		v, ok := cm.Data[r.Key]
		if !ok && !isTrue(r.Optional) {
			return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", r.Key, pod.Namespace, r.Name)
		}
		return v, ok, nil
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		sec := set.Secret(pod.Namespace, r.Name)
		if sec == nil {
			if isTrue(r.Optional) {
				return "", false, nil
			}
			return "", false, fmt.Errorf("secret %q not found", r.Name)
		}
		v, ok := sec.Data[r.Key]
		if !ok && !isTrue(r.Optional) {
			return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", r.Key, pod.Namespace, r.Name)
		}
		return string(v), ok, nil
	case from.FileKeyRef != nil:
		return fileValue(a, from.FileKeyRef)
	}
	return "", false, fmt.Errorf("env %s: this kind of valueFrom is not supported", e.Name)
}

// field is a downward API field; those that need the node or the place are answered here.
func (n Node) field(a Attempt, path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return n.Name, nil
	case "spec.serviceAccountName":
		return a.Pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(n.IPs), nil
	case "status.hostIPs":
		return strings.Join(n.IPs, ","), nil
	case "status.podIP":
		return first(a.Place.IPs), nil
	case "status.podIPs":
		return strings.Join(a.Place.IPs, ","), nil
	}
	return downward.Field(a.Pod, path)
}

// serviceEnv adds the variables of one Service, in the form that Docker links once had.
func serviceEnv(vars map[string]string, s svcproxy.Service) {
	if len(s.ClusterIPs) == 0 || len(s.Ports) == 0 {
		return
	}
	ip := s.ClusterIPs[0].String()
	name := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	host := ip
	if s.ClusterIPs[0].Is6() {
		host = "[" + ip + "]"
	}
	vars[name+"_SERVICE_HOST"] = ip
	vars[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Ports[0].Port))
	for i, p := range s.Ports {
		port, proto := strconv.Itoa(int(p.Port)), strings.ToLower(string(p.Protocol))
		if p.Name != "" {
			vars[name+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = port
		}
		url := proto + "://" + host + ":" + port
		if i == 0 {
			vars[name+"_PORT"] = url
		}
		prefix := name + "_PORT_" + port + "_" + strings.ToUpper(proto)
		vars[prefix] = url
		vars[prefix+"_PROTO"] = proto
		vars[prefix+"_PORT"] = port
		vars[prefix+"_ADDR"] = ip
	}
}

func isTrue(b *bool) bool { return b != nil && *b }

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
