package apiserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestAppArmorAnnotations checks the warnings of AppArmor annotations, on pods and on templates, and the fields that pods get from them.
func TestAppArmorAnnotations(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	const pod, template = `metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]`, `.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]`
	deprecated := func(path string) string {
		return `299 - "` + strings.ReplaceAll(path+`: deprecated since v1.30; use the "appArmorProfile" field instead`, `"`, `\"`) + `"`
	}
	for i, test := range []struct {
		annotation, ofPod, ofContainer string // ofPod, ofContainer: the fields
		warns                          bool
		field                          string // of the container afterwards
	}{
		{`"unconfined"`, "", "", true, "Unconfined"},
		{`"runtime/default"`, "Unconfined", "", true, "RuntimeDefault"},
		{`"runtime/default"`, "RuntimeDefault", "", false, ""},
		{`"runtime/default"`, "", "RuntimeDefault", false, "RuntimeDefault"},
	} {
		profile := func(of string) string {
			if of == "" {
				return "{}"
			}
			return `{"appArmorProfile":{"type":"` + of + `"}}`
		}
		body := func(name string) string {
			return fmt.Sprintf(`"metadata":{"name":%q,"labels":{"a":"b"},"annotations":{"container.apparmor.security.beta.kubernetes.io/c":%s}},
				"spec":{"securityContext":%s,"containers":[{"name":"c","image":"i","securityContext":%s}]}`, name, test.annotation, profile(test.ofPod), profile(test.ofContainer))
		}
		name := fmt.Sprintf("p%d", i)
		check := func(what, url, text, path string) []byte {
			a := h.do(http.MethodPost, url, text)
			if got := a.header["Warning"]; a.code != 201 || slices.Contains(got, deprecated(path)) != test.warns || len(got) > 1 {
				t.Errorf("%s of %+v: %d %s, warnings %q", what, test, a.code, a.body, got)
			}
			return []byte(a.body)
		}
		var made corev1.Pod
		if err := json.Unmarshal(check("pod", "/api/v1/namespaces/default/pods", `{`+body(name)+`}`, pod), &made); err != nil || len(made.Spec.Containers) != 1 {
			t.Fatal(err)
		}
		got := ""
		if sc := made.Spec.Containers[0].SecurityContext; sc != nil && sc.AppArmorProfile != nil {
			got = string(sc.AppArmorProfile.Type)
		}
		if got != test.field {
			t.Errorf("%+v: the container's profile is %q", test, got)
		}
		if test.ofPod != "" && test.warns {
			continue // refused in templates
		}
		check("template", "/api/v1/namespaces/default/podtemplates", `{"metadata":{"name":"`+name+`"},"template":{`+body("")+`}}`, "template"+template)
		check("deployment", "/apis/apps/v1/namespaces/default/deployments",
			`{"metadata":{"name":"`+name+`"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{`+body("")+`}}}`, "spec.template"+template)
	}
}
