package spdx

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"

	"petrel.dev/petrel/cross-build/pack/inventory"
	"petrel.dev/petrel/cross-build/pack/notices"
)

// TestRealBinary makes the bill of materials and the licences of a real program, the one that this module has, and checks that everything
// the Go tool says is in it is there, with its digest and licence.
func TestRealBinary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pack")
	if out, err := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", file, "..").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	b, err := inventory.Source{Root: "..", Version: "v1.2.3"}.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 0)
	text, err := JSON(b, at)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := JSON(b, at); err != nil || !bytes.Equal(again, text) {
		t.Errorf("the same binary has two documents: %v", err)
	}
	doc, err := spdxjson.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if doc.SPDXVersion != "SPDX-2.3" || doc.DataLicense != "CC0-1.0" || doc.CreationInfo.Created != "2023-11-14T22:13:20Z" || doc.DocumentNamespace == "" {
		t.Errorf("document: %+v, %+v", doc, doc.CreationInfo)
	}
	wellFormed(t, text)

	info, err := buildinfo.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	licences := notices.Text(b)
	for _, m := range info.Deps {
		found := false
		for _, p := range doc.Packages {
			if p.PackageName != m.Path || p.PackageVersion != m.Version {
				continue
			}
			found = true
			if p.PackageLicenseDeclared == "" || len(p.PackageChecksums) != 1 || p.PackageChecksums[0].Algorithm != common.SHA256 || len(p.PackageChecksums[0].Value) != 64 {
				t.Errorf("%s: licence %q, digests %v", m.Path, p.PackageLicenseDeclared, p.PackageChecksums)
			}
			if want := "pkg:golang/" + strings.ToLower(m.Path) + "@"; len(p.PackageExternalReferences) != 1 || !strings.HasPrefix(p.PackageExternalReferences[0].Locator, want) {
				t.Errorf("%s: references %v", m.Path, p.PackageExternalReferences)
			}
		}
		if !found {
			t.Errorf("the document lacks %s %s", m.Path, m.Version)
		}
		if !strings.Contains(licences, m.Path+" "+m.Version+" (") {
			t.Errorf("the licences lack the text of %s", m.Path)
		}
	}
	if len(info.Deps) < 20 || len(doc.Packages) != len(info.Deps)+2 { // itself, and Go's own library
		t.Errorf("%d packages for %d modules", len(doc.Packages), len(info.Deps))
	}
}

// wellFormed checks what a reader of SPDX relies on: identifiers are unique and of the right form, and relations lead to one.
func wellFormed(t *testing.T, text []byte) {
	t.Helper()
	var doc struct {
		SPDXID   string `json:"SPDXID"`
		Packages []struct {
			SPDXID        string `json:"SPDXID"`
			FilesAnalyzed *bool  `json:"filesAnalyzed"`
			Download      string `json:"downloadLocation"`
		} `json:"packages"`
		Relationships []struct {
			A    string `json:"spdxElementId"`
			Kind string `json:"relationshipType"`
			B    string `json:"relatedSpdxElement"`
		} `json:"relationships"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^SPDXRef-[a-zA-Z0-9.-]+$`)
	ids := map[string]bool{doc.SPDXID: true}
	for _, p := range doc.Packages {
		if ids[p.SPDXID] || !form.MatchString(p.SPDXID) {
			t.Errorf("identifier %q is there twice, or has not the form", p.SPDXID)
		}
		if p.FilesAnalyzed == nil || *p.FilesAnalyzed || p.Download == "" {
			t.Errorf("%s: filesAnalyzed or downloadLocation is missing", p.SPDXID)
		}
		ids[p.SPDXID] = true
	}
	reached := map[string]bool{}
	described := 0
	for _, r := range doc.Relationships {
		if !ids[r.A] || !ids[r.B] {
			t.Errorf("%s %s %s leads nowhere", r.A, r.Kind, r.B)
		}
		if r.Kind == "DESCRIBES" {
			described++
		}
		reached[r.B] = true
	}
	if described != 1 {
		t.Errorf("the document describes %d packages", described)
	}
	for id := range ids {
		if id != doc.SPDXID && !reached[id] {
			t.Errorf("no relation leads to %s", id)
		}
	}
}

// TestInside checks that programs inside are contained, with what they were linked from, and that what two have stands there once.
func TestInside(t *testing.T) {
	shared := inventory.Part{Name: "example.org/m", Version: "v1.0.0", License: "MIT", PURL: "pkg:golang/example.org/m@v1.0.0", Sum: "h1:bad"}
	b := inventory.Binary{Name: "petrel", File: "petrel-linux-arm64", Version: "v1", SHA256: strings.Repeat("0", 64), Parts: []inventory.Part{shared}}
	b.Inside = []inventory.Binary{{
		Name: "runc", File: "runc", Version: "v1.5.3", SHA256: strings.Repeat("1", 64), Part: inventory.Part{Name: "runc", Version: "v1.5.3", License: "Apache-2.0"},
		Parts: []inventory.Part{shared, {Name: "libseccomp", Version: "2.6.0", License: "LGPL-2.1-only"}},
	}}
	text, err := JSON(b, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, text)
	doc, err := spdxjson.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(doc.Packages) != 4 {
		t.Errorf("%d packages, want petrel, runc, the module and libseccomp", len(doc.Packages))
	}
	contained := 0
	for _, r := range doc.Relationships {
		if r.Relationship == common.TypeRelationshipContains {
			contained++
		}
	}
	if contained != 1 {
		t.Errorf("%d programs are contained, want runc", contained)
	}
	if s := notices.Text(b); !strings.Contains(s, "libseccomp 2.6.0 is linked into runc statically") {
		t.Errorf("the licences do not say how libseccomp is linked:\n%s", s)
	}
}
