package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// document is one object of a manifest, and where it stands.
type document struct {
	object *unstructured.Unstructured
	source string // "web.yaml, document 2"
}

// readManifests reads all documents of files, directories (not below them) and standard input ("-"). Everything is read
// and checked before anything is returned: one broken document refuses the whole, so that nothing is half done.
func readManifests(s *Streams, names []string) ([]document, error) {
	var docs []document
	var errs []error
	for _, name := range names {
		files := []string{name}
		if name != "-" {
			info, err := os.Stat(name)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("the file %q does not exist", name)
			}
			if err != nil {
				return nil, err
			}
			if info.IsDir() {
				if files, err = manifestsIn(name); err != nil {
					return nil, err
				}
			}
		}
		for _, f := range files {
			d, err := readManifest(s, f)
			if err != nil {
				errs = append(errs, err)
			}
			docs = append(docs, d...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("nothing was changed: %w", err)
	}
	if len(docs) == 0 {
		return nil, errors.New("no objects: the files hold no document with apiVersion and kind")
	}
	return docs, nil
}

func manifestsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the directory %q holds no .yaml, .yml or .json file", dir)
	}
	return files, nil
}

func readManifest(s *Streams, name string) ([]document, error) {
	var in io.Reader = s.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	} else {
		name = "standard input"
	}
	var docs []document
	reader := utilyaml.NewYAMLReader(bufio.NewReader(in))
	for n := 1; ; n++ {
		raw, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		source := fmt.Sprintf("%s, document %d", name, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		var content map[string]any
		// Strict: a key that is written twice means that one of the two is not what its author believes.
		if err := yaml.UnmarshalStrict(raw, &content); err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		if content == nil {
			continue // only comments
		}
		// Through JSON once more, for the number types that the API machinery expects.
		j, err := yaml.YAMLToJSON(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		obj := &unstructured.Unstructured{}
		if err := obj.UnmarshalJSON(j); err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		if !obj.IsList() {
			docs = append(docs, document{obj, source})
			continue
		}
		err = obj.EachListItem(func(o runtime.Object) error {
			docs = append(docs, document{o.(*unstructured.Unstructured), source})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
	}
}

// mappingOf finds the resource type of a document.
func (c *conn) mappingOf(d document) (*meta.RESTMapping, error) {
	gvk := d.object.GroupVersionKind()
	m, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		return nil, fmt.Errorf("%s: the server knows no kind %q in %q; `petrel api-resources` lists those it has", d.source, gvk.Kind, gvk.GroupVersion())
	}
	return m, err
}

// namespaceOf is where a document's object goes: its own namespace, or the request's. An explicit -n must not contradict.
func (c *conn) namespaceOf(m *meta.RESTMapping, d document, explicit string) (string, error) {
	if !namespaced(m) {
		return "", nil
	}
	own := d.object.GetNamespace()
	if own == "" {
		d.object.SetNamespace(c.namespace)
		return c.namespace, nil
	}
	if explicit != "" && own != explicit {
		return "", fmt.Errorf("%s: the namespace of the object, %q, is not the one of -n, %q", d.source, own, explicit)
	}
	return own, nil
}
