// Package spdx writes the bill of materials of a binary as an SPDX 2.3 document.
package spdx

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"petrel.dev/petrel/cross-build/pack/inventory"
)

// none is what SPDX has in a field that is left open.
const none = "NOASSERTION"

// JSON returns the document. The same binary and time give the same bytes.
func JSON(b inventory.Binary, at time.Time) ([]byte, error) {
	d := &document{seen: map[string]common.ElementID{}}
	d.doc = &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName:      b.File,
		DocumentNamespace: "https://petrel.dev/spdx/" + b.File + "-" + b.SHA256,
		CreationInfo: &v2_3.CreationInfo{
			Created:  at.UTC().Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "petrel-pack-" + b.Version}},
		},
	}
	main := d.binary(b)
	d.relate("DOCUMENT", common.TypeRelationshipDescribe, main)
	for _, p := range b.Inside {
		d.relate(main, common.TypeRelationshipContains, d.binary(p))
	}
	var out bytes.Buffer
	if err := json.Write(d.doc, &out, json.Indent(" ")); err != nil {
		return nil, fmt.Errorf("write SPDX document: %w", err)
	}
	return out.Bytes(), nil
}

// document is one that is being made.
type document struct {
	doc  *v2_3.Document              // grows only
	seen map[string]common.ElementID // parts that several programs have, by their key
}

// binary adds a program and what is linked into it.
func (d *document) binary(b inventory.Binary) common.ElementID {
	// Declared is what authors say, concluded what a lawyer would: nobody concluded anything here.
	p := &v2_3.Package{
		PackageName: b.Name, PackageSPDXIdentifier: id("Program", b.Name), PackageVersion: b.Version, PackageFileName: b.File,
		PackageDownloadLocation: none, PackageLicenseConcluded: none, PackageLicenseDeclared: "Apache-2.0", PackageCopyrightText: none,
		PackageChecksums:      []common.Checksum{{Algorithm: common.SHA256, Value: b.SHA256}},
		PrimaryPackagePurpose: "APPLICATION", IsFilesAnalyzedTagPresent: true,
		PackageExternalReferences: purl("pkg:golang/" + strings.ToLower(b.Module) + "@" + b.Version),
	}
	if b.Part.Name != "" {
		p.PackageLicenseDeclared = b.Part.License
		p.PackageExternalReferences = purl(b.Part.PURL)
	}
	d.doc.Packages = append(d.doc.Packages, p)
	for _, part := range b.Parts {
		// Everything is linked statically, by Go's linker and, into runc, by the C one.
		d.relate(p.PackageSPDXIdentifier, common.TypeRelationshipStaticLink, d.part(part))
	}
	return p.PackageSPDXIdentifier
}

// part adds a module or library unless it is there.
func (d *document) part(part inventory.Part) common.ElementID {
	if known, ok := d.seen[part.Key()]; ok {
		return known
	}
	p := &v2_3.Package{
		PackageName: part.Name, PackageSPDXIdentifier: id("Part", part.Key()), PackageVersion: part.Version,
		PackageDownloadLocation: none, PackageLicenseConcluded: none, PackageLicenseDeclared: part.License, PackageCopyrightText: none,
		PrimaryPackagePurpose: "LIBRARY", IsFilesAnalyzedTagPresent: true,
		PackageExternalReferences: purl(part.PURL),
	}
	if sum, ok := strings.CutPrefix(part.Sum, "h1:"); ok {
		if b, err := base64.StdEncoding.DecodeString(sum); err == nil && len(b) == sha256.Size {
			p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(b)}}
			p.PackageComment = "The checksum is that of go.sum: the SHA-256 of the list of the files' SHA-256."
		}
	}
	d.doc.Packages = append(d.doc.Packages, p)
	d.seen[part.Key()] = p.PackageSPDXIdentifier
	return p.PackageSPDXIdentifier
}

func (d *document) relate(a common.ElementID, kind string, b common.ElementID) {
	d.doc.Relationships = append(d.doc.Relationships, &v2_3.Relationship{
		RefA: common.DocElementID{ElementRefID: a}, Relationship: kind, RefB: common.DocElementID{ElementRefID: b},
	})
}

func purl(locator string) []*v2_3.PackageExternalReference {
	if locator == "" {
		return nil
	}
	return []*v2_3.PackageExternalReference{{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: locator}}
}

var notInID = regexp.MustCompile(`[^a-zA-Z0-9.]+`)

// id makes an identifier of a name. What it leaves out is in a part of the name's digest, so that no two have the same.
func id(kind, name string) common.ElementID {
	digest := sha256.Sum256([]byte(name))
	return common.ElementID(kind + "-" + notInID.ReplaceAllString(name, "-") + "-" + hex.EncodeToString(digest[:4]))
}
