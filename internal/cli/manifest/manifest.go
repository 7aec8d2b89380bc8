// Package manifest reads files of objects: YAML and JSON, one or many to a file.
package manifest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Document is one object of a manifest, and where it is in it.
type Document struct {
	Object *unstructured.Unstructured
	Source string // "web.yaml, document 2"
}

// Read reads all documents of files, directories (below them too when recursive) and in ("-").
// Everything is read and checked before anything is returned: one broken document refuses all of them, so that nothing is
// done by halves.
func Read(in io.Reader, names []string, recursive bool) ([]Document, error) {
	var docs []Document
	var errs []error
	for _, name := range names {
		files := []string{name}
		if name != "-" {
			info, err := os.Stat(name)
			switch {
			case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
				return nil, fmt.Errorf("%s: petrel reads no URLs; fetch it first, as in: curl -fL %s | petrel ... -f -", name, name)
			case errors.Is(err, fs.ErrNotExist):
				return nil, fmt.Errorf("the file %q does not exist", name)
			case err != nil:
				return nil, err
			}
			if info.IsDir() {
				if files, err = manifestsIn(name, recursive); err != nil {
					return nil, err
				}
			}
		}
		for _, f := range files {
			d, err := read(in, f)
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

func manifestsIn(dir string, recursive bool) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if path != dir && !recursive {
				return fs.SkipDir
			}
			return nil
		}
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the directory %q holds no .yaml, .yml or .json file", dir)
	}
	return files, nil
}

func read(in io.Reader, name string) ([]Document, error) {
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
	// A byte order mark marks the encoding: some editors and shells of Windows write UTF-16. Without one it is UTF-8.
	in = transform.NewReader(in, unicode.BOMOverride(transform.Nop))
	var docs []Document
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
		for _, text := range jsonValues(raw) {
			objs, err := parseDocument(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", source, err)
			}
			for _, o := range objs {
				docs = append(docs, Document{o, source})
			}
		}
	}
}

// jsonValues splits several JSON objects in a row, as jq writes them: a YAML parser would read the first and silently ignore the
// rest. Anything else stays whole.
func jsonValues(raw []byte) [][]byte {
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		return [][]byte{raw}
	}
	var values [][]byte
	for dec := json.NewDecoder(bytes.NewReader(raw)); ; {
		var v json.RawMessage
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) {
			return values
		}
		if err != nil { // YAML in braces, or broken: the rest is left to the YAML parser
			return append(values, raw[offsetOf(values, raw):])
		}
		values = append(values, v)
	}
}

// offsetOf returns where raw goes on after the values that were read from it.
func offsetOf(values [][]byte, raw []byte) int {
	end := 0
	for _, v := range values {
		end += bytes.Index(raw[end:], v) + len(v)
	}
	return end
}

// parseDocument reads one YAML or JSON document: an object, the members of a list, or nothing but comments.
func parseDocument(text []byte) ([]*unstructured.Unstructured, error) {
	var content any
	// Strict: of a key that is written twice, one is not what its author believes.
	if err := yaml.UnmarshalStrict(text, &content); err != nil {
		return nil, err
	}
	switch m := content.(type) {
	case nil:
		return nil, nil
	case map[string]any:
		for _, key := range []string{"apiVersion", "kind"} {
			if v, ok := m[key].(string); !ok || v == "" {
				return nil, fmt.Errorf("%s is missing; an object begins with apiVersion and kind", key)
			}
		}
	default:
		return nil, errors.New("this is no object: one begins with apiVersion and kind")
	}
	// Through JSON once more, for the number types that the API machinery expects.
	j, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, err
	}
	o, _, err := unstructured.UnstructuredJSONScheme.Decode(j, nil, nil) // members of a ConfigMapList get their kind
	if err != nil {
		return nil, err
	}
	if obj, single := o.(*unstructured.Unstructured); single {
		return []*unstructured.Unstructured{obj}, nil
	}
	var objs []*unstructured.Unstructured
	err = o.(*unstructured.UnstructuredList).EachListItem(func(item runtime.Object) error {
		objs = append(objs, item.(*unstructured.Unstructured))
		return nil
	})
	return objs, err
}
