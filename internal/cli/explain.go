package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/kubectl/pkg/explain"
	explainv3 "k8s.io/kubectl/pkg/explain/v2"
)

// Explain documents the fields of a type, from the server's own OpenAPI v3 documents; the text is kubectl's.
type Explain struct {
	Cluster
	Path      string `arg:"" name:"type.field" help:"A type, or a field of it: pods, deployment.spec.strategy."`
	Recursive bool   `help:"All fields below, without their texts."`
}

// Run prints nothing but the error when the path leads nowhere.
func (e *Explain) Run(ctx context.Context, s *Streams) error {
	c, err := e.connect(ctx, s)
	if err != nil {
		return err
	}
	gvr, fields, err := explain.SplitAndParseResourceRequestWithMatchingPrefix(strings.ToLower(e.typ())+e.Path[len(e.typ()):], c.mapper)
	if meta.IsNoMatchError(err) {
		return c.noSuchType(e.typ())
	}
	if err != nil {
		return err
	}
	var text bytes.Buffer
	err = explainv3.PrintModelDescription(fields, &text, c.discovery.OpenAPIV3(), gvr, e.Recursive, "plaintext")
	if err != nil && len(fields) > 0 {
		parent := e.Path[:strings.LastIndex(e.Path, ".")]
		return fmt.Errorf("%s: %w; `petrel explain %s` lists the fields that there are", e.Path, err, parent)
	}
	if err != nil {
		return err
	}
	_, err = text.WriteTo(s.Out)
	return err
}

// typ returns the part of the path before its first dot: the type, or the beginning of "deployments.apps".
func (e *Explain) typ() string {
	typ, _, _ := strings.Cut(e.Path, ".")
	return typ
}
