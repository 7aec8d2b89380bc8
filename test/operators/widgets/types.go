// Package widgets is a small operator on controller-runtime, as people write them: a kind of its own in two versions, a conversion
// webhook between them, webhooks that default and validate, and a reconciler that applies on the server.
package widgets

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/conversion"
)

// V1 is the stored version, V1beta1 the one that older clients use.
var (
	V1      = schema.GroupVersion{Group: "example.dev", Version: "v1"}
	V1beta1 = schema.GroupVersion{Group: "example.dev", Version: "v1beta1"}
)

// Widget is a widget in version v1.
type Widget struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              WidgetSpec   `json:"spec"`
	Status            WidgetStatus `json:"status,omitempty"`
}

// WidgetSpec gives the size in two numbers; the webhook that defaults sets Color.
type WidgetSpec struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Color  string `json:"color,omitempty"`
}

// WidgetStatus is what the reconciler reports.
type WidgetStatus struct {
	Area               int   `json:"area,omitempty"`
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// WidgetList is a list of widgets in version v1.
type WidgetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Widget `json:"items"`
}

// Hub marks v1 as the version that all conversions go through.
func (*Widget) Hub() {}

// DeepCopyObject returns a copy that shares nothing with w.
func (w *Widget) DeepCopyObject() runtime.Object {
	out := *w
	out.ObjectMeta = *w.ObjectMeta.DeepCopy()
	return &out
}

// DeepCopyObject returns a copy that shares nothing with l.
func (l *WidgetList) DeepCopyObject() runtime.Object {
	out := *l
	out.ListMeta = *l.ListMeta.DeepCopy()
	out.Items = make([]Widget, len(l.Items))
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*Widget)
	}
	return &out
}

// OldWidget is a widget in version v1beta1, whose size is one string such as "3x4".
type OldWidget struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              OldWidgetSpec `json:"spec"`
	Status            WidgetStatus  `json:"status,omitempty"`
}

// OldWidgetSpec gives the size in one string.
type OldWidgetSpec struct {
	Size  string `json:"size"`
	Color string `json:"color,omitempty"`
}

// DeepCopyObject returns a copy that shares nothing with w.
func (w *OldWidget) DeepCopyObject() runtime.Object {
	out := *w
	out.ObjectMeta = *w.ObjectMeta.DeepCopy()
	return &out
}

// ConvertTo writes w into a widget of version v1.
func (w *OldWidget) ConvertTo(to conversion.Hub) error {
	out := to.(*Widget)
	out.ObjectMeta, out.Status, out.Spec.Color = w.ObjectMeta, w.Status, w.Spec.Color
	if _, err := fmt.Sscanf(w.Spec.Size, "%dx%d", &out.Spec.Width, &out.Spec.Height); err != nil {
		return fmt.Errorf("size %q is not of the form 3x4", w.Spec.Size)
	}
	return nil
}

// ConvertFrom reads w from a widget of version v1.
func (w *OldWidget) ConvertFrom(from conversion.Hub) error {
	in := from.(*Widget)
	w.ObjectMeta, w.Status = in.ObjectMeta, in.Status
	w.Spec = OldWidgetSpec{Size: fmt.Sprintf("%dx%d", in.Spec.Width, in.Spec.Height), Color: in.Spec.Color}
	return nil
}

// AddToScheme makes both versions known to a scheme.
func AddToScheme(s *runtime.Scheme) {
	s.AddKnownTypes(V1, &Widget{}, &WidgetList{})
	s.AddKnownTypeWithName(V1beta1.WithKind("Widget"), &OldWidget{})
	metav1.AddToGroupVersion(s, V1)
	metav1.AddToGroupVersion(s, V1beta1)
}
