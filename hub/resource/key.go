package resource

import "strings"

// Key returns the store's key of an object: "/apps/deployments/NAMESPACE/NAME", "/core/nodes/NAME". The version is not
// part of it, so that objects outlive the version that they were written in.
func Key(k *Kind, namespace, name string) string { return Prefix(k, namespace) + name }

// Prefix returns the common prefix of the keys of a namespace, or of all objects of the kind when namespace is empty. It ends
// with a slash.
func Prefix(k *Kind, namespace string) string {
	k = k.Stored()
	group := k.GVK.Group
	if group == "" {
		group = "core"
	}
	prefix := "/" + group + "/" + k.Plural + "/"
	if k.Namespaced && namespace != "" {
		prefix += namespace + "/"
	}
	return prefix
}

// NamesOf takes a key of the kind apart again; ok is false when it is another kind's.
func NamesOf(k *Kind, key string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, Prefix(k, ""))
	if !ok {
		return "", "", false
	}
	if !k.Namespaced {
		return "", rest, rest != "" && !strings.Contains(rest, "/")
	}
	namespace, name, ok = strings.Cut(rest, "/")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, "/")
}
