package difference

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	if text == "" {
		return nil
	}
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOf(t *testing.T) {
	const plain = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, resourceVersion: '1', generation: 1}\ndata: {a: same, b: old}\n"
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, annotations: {kubectl.kubernetes.io/last-applied-configuration: c3Rvcm0=}}\n"
	for _, c := range []struct{ name, live, next, want string }{
		{"a value", plain, strings.NewReplacer("old", "new", "'1'", "'2'").Replace(plain),
			"--- live x\n+++ applied x\n@@ -1,7 +1,7 @@\n apiVersion: v1\n data:\n   a: same\n-  b: old\n+  b: new\n kind: ConfigMap\n metadata:\n   name: c\n"},
		{"only what every write changes", plain, strings.Replace(plain, "'1'", "'2'", 1), ""},
		{"created", "", "apiVersion: v1\nkind: ConfigMap\n", "--- live x\n+++ applied x\n@@ -0,0 +1,2 @@\n+apiVersion: v1\n+kind: ConfigMap\n"},
		{"deleted", "apiVersion: v1\nkind: ConfigMap\n", "", "--- live x\n+++ applied x\n@@ -1,2 +0,0 @@\n-apiVersion: v1\n-kind: ConfigMap\n"},
		{"a Secret", secret + "data: {same: c3Rvcm0=, changed: c3Rvcm0=, gone: c3Rvcm0=}\n", secret + "data: {same: c3Rvcm0=, changed: Y2FsbQ==, new: Y2FsbQ==}\nstringData: {clear: calm}\n",
			"--- live x\n+++ applied x\n@@ -1,8 +1,10 @@\n apiVersion: v1\n data:\n-  changed: '*** (before)'\n-  gone: '***'\n+  changed: '*** (after)'\n+  new: '***'\n   same: '***'\n kind: Secret\n metadata:\n   name: s\n+stringData:\n+  clear: '***'\n"},
		{"a Secret whose values are no map", secret + "data: c3Rvcm0=\n", secret + "data: [c3Rvcm0=]\n", ""},
		{"a Secret with a number", secret + "data: {pin: 12345678}\n", secret + "data: {pin: [87654321]}\n",
			"--- live x\n+++ applied x\n@@ -1,6 +1,6 @@\n apiVersion: v1\n data:\n-  pin: '*** (before)'\n+  pin: '*** (after)'\n kind: Secret\n metadata:\n   name: s\n"},
	} {
		live := object(t, c.live)
		got, err := Of("x", live, object(t, c.next))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.name, err, got, c.want)
		}
		for _, secret := range []string{"c3Rvcm0", "Y2FsbQ", "calm", "12345678", "87654321"} {
			if strings.Contains(string(got), secret) {
				t.Errorf("%s: %s is shown", c.name, secret)
			}
		}
		if again := object(t, c.live); live != nil && live.GetResourceVersion() != again.GetResourceVersion() {
			t.Errorf("%s: the object was changed", c.name)
		}
	}
}

func TestPaint(t *testing.T) {
	got := string(Paint([]byte("@@ -1 +1 @@\n same\n-old\n+new\n")))
	if want := "\x1b[36m@@ -1 +1 @@\x1b[0m\n same\n\x1b[31m-old\x1b[0m\n\x1b[32m+new\x1b[0m\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
