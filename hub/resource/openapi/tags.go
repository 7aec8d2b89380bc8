package openapi

import (
	_ "embed"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/hub/resource"
)

// builtinTags are the hashes of the documents of version 3 of built-in kinds, so that clients learn whether they have a document without it being
// built. Most of them read one or two of thirty. TestTags compares them with the documents, and writes the file with
//
//	go test ./hub/resource/openapi -run TestTags -update
//
// A line has the path, the hash and the kinds.
//
//go:embed tags.txt
var builtinTags string

// tagOf returns the hash of a group-version's document; "" when that depends on custom kinds, or on kinds that are not all there, and has to be
// built.
func tagOf(gv schema.GroupVersion, kinds []*resource.Kind) string {
	if slices.ContainsFunc(kinds, (*resource.Kind).Unstructured) {
		return ""
	}
	for line := range strings.Lines(builtinTags) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == root(gv)[1:] && f[2] == namesOf(kinds) {
			return f[1]
		}
	}
	return ""
}

// namesOf returns the names of kinds, sorted.
func namesOf(kinds []*resource.Kind) string {
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		names = append(names, k.GVK.Kind)
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}
