package hello

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestServerTellsEnvironmentAndFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "motto.txt"), []byte("far from shore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GREETING", "Ahoy")
	srv := httptest.NewServer(Server{Files: dir, Out: io.Discard}.handler())
	defer srv.Close()

	var out bytes.Buffer
	if err := Fetch(t.Context(), &out, srv.URL+"/x?y=1", 1e10); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Hello from ", "GET /x?y=1", "GREETING=Ahoy", "motto.txt: far from shore"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("answer lacks %q:\n%s", want, out.String())
		}
	}
}

// Every blob of the layout must lie under its own digest, and the index must lead to the layer with the binary.
func TestImageIsAConsistentLayout(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.WriteFile(bin, []byte("#!/bin/true"), 0o755); err != nil {
		t.Fatal(err)
	}
	var buf, again bytes.Buffer
	if err := WriteImage(&buf, bin, "petrel.local/hello:v1"); err != nil {
		t.Fatal(err)
	}
	if err := WriteImage(&again, bin, "petrel.local/hello:v1"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes(), again.Bytes()) {
		t.Error("two images of one binary differ")
	}
	files := map[string][]byte{}
	tr := tar.NewReader(&buf)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name], _ = io.ReadAll(tr)
	}
	for name, data := range files {
		if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digest.FromBytes(data).Encoded() != hex {
			t.Errorf("%s holds something else", name)
		}
	}
	var index ocispec.Index
	var manifest ocispec.Manifest
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(files["blobs/sha256/"+index.Manifests[0].Digest.Encoded()], &manifest); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(files["blobs/sha256/"+manifest.Layers[0].Digest.Encoded()], []byte("#!/bin/true")) {
		t.Error("the layer lacks the binary")
	}
}
