package table

import (
	"encoding/json"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metatable "k8s.io/apimachinery/pkg/api/meta/table"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/hub/apiserver/media"
)

// Scale renders a Scale of an object of the kind. Every kind's Scale has the same columns, so no kind's declaration has them. What is no
// Scale has no Table: the error is that of a form that is not served.
func (c Convertor) Scale(body []byte) (*metav1.Table, error) {
	var s autoscalingv1.Scale
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, fmt.Errorf("decode scale: %w", err)
	}
	if s.Kind != "Scale" {
		return nil, media.NotAcceptable("Table.v1.meta.k8s.io")
	}
	row, err := c.rowObject(body)
	if err != nil {
		return nil, err
	}
	meta := metav1.ObjectMeta{}.SwaggerDoc()
	return &metav1.Table{
		TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: c.Shape},
		ListMeta: metav1.ListMeta{ResourceVersion: s.ResourceVersion},
		ColumnDefinitions: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: meta["name"]},
			{Name: "Desired", Type: "integer", Description: s.Spec.SwaggerDoc()["replicas"]},
			{Name: "Available", Type: "integer", Description: s.Status.SwaggerDoc()["replicas"]},
			{Name: "Age", Type: "string", Description: meta["creationTimestamp"]},
		},
		Rows: []metav1.TableRow{{Cells: []any{s.Name, int64(s.Spec.Replicas), int64(s.Status.Replicas), metatable.ConvertToHumanReadableDateType(s.CreationTimestamp)}, Object: row}},
	}, nil
}
