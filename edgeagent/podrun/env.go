package podrun

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"petrel.dev/petrel/edgeagent/desired"
	"petrel.dev/petrel/edgeagent/volume"
	"petrel.dev/petrel/svcproxy"
)

// facts are what the downward API may ask of the place where a pod runs.
type facts struct {
	nodeName    string
	hostIPs     []string
	podIPs      []string
	allocatable corev1.ResourceList               // of the node: stands in for limits that are not set
	volume      func(name string) (string, error) // where a volume of the pod is on the node
}

// environment assembles a container's environment: Services first, then envFrom, then env, later ones winning; $(NAME)
// in env refers to what came before. An error is what "CreateContainerConfigError" tells the user.
func environment(pod *corev1.Pod, c *corev1.Container, set *desired.Set, f facts) (map[string]string, []string, error) {
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
	for _, from := range c.EnvFrom {
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
	for _, e := range c.Env {
		v, ok, err := envValue(pod, c, e, set, f, vars)
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
func envValue(pod *corev1.Pod, c *corev1.Container, e corev1.EnvVar, set *desired.Set, f facts, vars map[string]string) (string, bool, error) {
	from := e.ValueFrom
	if from == nil {
		return expand(e.Value, vars), true, nil
	}
	switch {
	case from.FieldRef != nil:
		v, err := f.field(pod, from.FieldRef.FieldPath)
		return v, true, err
	case from.ResourceFieldRef != nil:
		target := c
		if n := from.ResourceFieldRef.ContainerName; n != "" && n != c.Name {
			if target = containerNamed(pod, n); target == nil {
				return "", false, fmt.Errorf("env %s: the pod has no container %q", e.Name, n)
			}
		}
		v, err := volume.ResourceField(from.ResourceFieldRef, pod, target, f.allocatable)
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
		root, err := f.volume(from.FileKeyRef.VolumeName)
		if err != nil {
			return "", false, err
		}
		return fileValue(root, from.FileKeyRef)
	}
	return "", false, fmt.Errorf("env %s: this kind of valueFrom is not supported", e.Name)
}

// field is a downward API field; the ones that need the node are answered here, the rest by the volume package.
func (f facts) field(pod *corev1.Pod, path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return f.nodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(f.hostIPs), nil
	case "status.hostIPs":
		return strings.Join(f.hostIPs, ","), nil
	case "status.podIP":
		return first(f.podIPs), nil
	case "status.podIPs":
		return strings.Join(f.podIPs, ","), nil
	}
	return volume.Field(pod, path)
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

// expand replaces $(NAME) by its value when it has one; $$ stands for $.
func expand(s string, vars map[string]string) string {
	return expandBy(s, func(name string) string {
		if v, ok := vars[name]; ok {
			return v
		}
		return "$(" + name + ")"
	})
}

// expandKnown is expand for a path, where a name without a value is an error: nobody wants a directory named after it.
func expandKnown(s string, vars map[string]string) (string, error) {
	var missing []string
	out := expandBy(s, func(name string) string {
		if _, ok := vars[name]; !ok {
			missing = append(missing, name)
		}
		return vars[name]
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("missing value for %s", strings.Join(missing, ", "))
	}
	return out, nil
}

func expandBy(s string, value func(name string) string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			b.WriteString(value(s[i+2 : i+end]))
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

func expandAll(list []string, vars map[string]string) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = expand(s, vars)
	}
	return out
}

func sortedEnv(vars map[string]string) []string {
	out := make([]string, 0, len(vars))
	for k, v := range vars {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

func containerNamed(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
