package revision

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Data returns what a revision stores: a strategic merge patch that replaces the pod template of its owner. kubectl rollout
// undo sends it as it is, and Kubernetes' own tools compare its bytes.
func Data(t *corev1.PodTemplateSpec) ([]byte, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encode pod template: %w", err)
	}
	var template map[string]any
	if err := json.Unmarshal(b, &template); err != nil {
		return nil, fmt.Errorf("encode pod template: %w", err)
	}
	template["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": template}})
}

// Template returns the pod template that a revision stores.
func Template(cr *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var patch struct {
		Spec struct {
			Template *corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(cr.Data.Raw, &patch); err != nil {
		return nil, fmt.Errorf("read revision %s: %w", cr.Name, err)
	}
	if patch.Spec.Template == nil {
		return nil, fmt.Errorf("read revision %s: it has no pod template", cr.Name)
	}
	return patch.Spec.Template, nil
}

// equal reports whether cr stores the template t, whose data is given: byte for byte or, when another writer has put the
// same fields down in another way, by what they mean.
func equal(cr *appsv1.ControllerRevision, t *corev1.PodTemplateSpec, data []byte) bool {
	if bytes.Equal(cr.Data.Raw, data) {
		return true
	}
	stored, err := Template(cr)
	return err == nil && equality.Semantic.DeepEqual(stored, t)
}

// hash returns a hash of data that is short and safe in names and labels. When two templates share one, the count of
// collisions in the owner's status distinguishes them.
func hash(data []byte, collisions *int32) string {
	h := fnv.New32a()
	_, _ = h.Write(data)
	if collisions != nil && *collisions > 0 {
		_, _ = h.Write(strconv.AppendInt(nil, int64(*collisions), 10))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// name returns the name of a revision; it is at most 253 characters long.
func name(owner, hash string) string {
	return owner[:min(len(owner), 253-1-len(hash))] + "-" + hash
}

// byNumber sorts revisions, the latest last.
func byNumber(crs []*appsv1.ControllerRevision) {
	slices.SortStableFunc(crs, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// Surplus returns the earliest revisions that are not live, beyond limit of them. nil or a negative limit keeps all.
func Surplus(crs []*appsv1.ControllerRevision, limit *int32, live func(cr *appsv1.ControllerRevision) bool) []*appsv1.ControllerRevision {
	if limit == nil || *limit < 0 {
		return nil
	}
	past := slices.DeleteFunc(slices.Clone(crs), live)
	return past[:max(0, len(past)-int(*limit))]
}
