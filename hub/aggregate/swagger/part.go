package swagger

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"petrel.dev/petrel/hub/resource/openapi"
	"petrel.dev/petrel/hub/weight"
	"petrel.dev/petrel/internal/contain"
)

// maxMerged bounds what all parts take once they are decoded, in bytes: those of the least important servers are left out.
const maxMerged = 2 * weight.Max

// kindsOf is the extension that says which kinds a definition is of.
const kindsOf = "x-kubernetes-group-version-kind"

// part is what a server's document says about the group-version of its APIService. It does not change; the zero value is none.
type part struct {
	apiService string
	packed     []byte // gzip'd JSON
	tag        string
	weight     int64 // what it takes once it is decoded, at most, in bytes
}

// partOf returns the part of a server's document that is about the group-version of svc. What clients could not read is an error.
func partOf(doc []byte, svc *apiregistrationv1.APIService) (part, error) {
	shape := weight.ShapeOf(&spec.Swagger{})
	if err := weight.Check(doc, shape); err != nil {
		return part{}, err
	}
	whole := &spec.Swagger{}
	if err := json.Unmarshal(doc, whole); err != nil {
		return part{}, fmt.Errorf("decode: %w", err)
	}
	if whole.Paths == nil {
		return part{}, errors.New("the document has no paths")
	}
	own := aggregator.FilterSpecByPathsWithoutSideEffects(whole, []string{"/apis/" + svc.Spec.Group + "/" + svc.Spec.Version + "/"})
	for name, s := range own.Definitions {
		keepKinds(&s, svc.Spec.Group)
		own.Definitions[name] = s
	}
	raw, err := json.Marshal(own)
	if err != nil {
		return part{}, fmt.Errorf("encode: %w", err)
	}
	n, err := weight.JSON(raw, shape, maxMerged)
	if err != nil {
		return part{}, err
	}
	packed, tag, err := openapi.Pack(own)
	if err != nil {
		return part{}, fmt.Errorf("encode: %w", err)
	}
	if _, err := openapi.ProtobufV2(packed); err != nil { // of which clients have a stricter form
		return part{}, err
	}
	return part{apiService: svc.Name, packed: packed, tag: tag, weight: n}, nil
}

// keepKinds takes away what a definition says of kinds of other groups: clients find the definition of a kind by it.
func keepKinds(s *spec.Schema, group string) {
	value, ok := s.Extensions[kindsOf]
	if !ok {
		return
	}
	list, _ := value.([]any)
	own := slices.DeleteFunc(slices.Clone(list), func(v any) bool {
		kind, _ := v.(map[string]any)
		return kind["group"] != group
	})
	if delete(s.Extensions, kindsOf); len(own) > 0 {
		s.Extensions[kindsOf] = own
	}
}

// merge returns the document that has own and all parts. A part that cannot be merged is left out.
func merge(own []byte, parts []part, log *slog.Logger) (packed []byte, tag string, err error) {
	out := map[string]bool{} // APIServices whose part is left out
	for {
		doc, failed, err := tryMerge(own, parts, out, log)
		if err != nil {
			return nil, "", err
		}
		if failed == "" {
			return openapi.Pack(doc)
		}
		out[failed] = true // half of it may be in doc
	}
}

// tryMerge merges all parts but those of out into own. failed names an APIService whose part cannot be merged.
func tryMerge(own []byte, parts []part, out map[string]bool, log *slog.Logger) (doc *spec.Swagger, failed string, err error) {
	if doc, err = decode(own); err != nil {
		return nil, "", err
	}
	total := int64(0)
	for _, p := range parts {
		if total += p.weight; out[p.apiService] {
			continue
		}
		if total > maxMerged {
			log.Warn("OpenAPI document of an aggregated server is left out: together they would take too much memory", "apiService", p.apiService, "bytes", total, "limit", maxMerged)
			continue
		}
		err := contain.Do(log, "aggregate/swagger", p.apiService, func() error {
			source, err := decode(p.packed)
			if err != nil {
				return err
			}
			return aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(doc, source)
		})
		if err != nil {
			log.Warn("OpenAPI document of an aggregated server cannot be merged, and is left out", "apiService", p.apiService, "error", err)
			return nil, p.apiService, nil
		}
	}
	return doc, "", nil
}

func decode(packed []byte) (*spec.Swagger, error) {
	raw, err := openapi.Unpack(packed)
	if err != nil {
		return nil, err
	}
	doc := &spec.Swagger{}
	if err := json.Unmarshal(raw, doc); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return doc, nil
}
