package hello

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// binaryInImage is where the petrel binary lies in the image, and its entry point.
const binaryInImage = "petrel"

// WriteImage writes an OCI image layout, as a tar stream, whose only layer holds the binary at path for the architecture
// that this process runs on. ref is the name that the image is imported under. Equal inputs give equal bytes.
func WriteImage(w io.Writer, path, ref string) error {
	layer, err := layerOf(path)
	if err != nil {
		return fmt.Errorf("hello image: %w", err)
	}
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH, Variant: variant()},
		Config: ocispec.ImageConfig{
			Entrypoint: []string{"/" + binaryInImage},
			Cmd:        []string{"serve"},
			Env:        []string{"PATH=/"},
			WorkingDir: "/",
		},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	})
	if err != nil {
		return fmt.Errorf("hello image config: %w", err)
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    descriptor(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{descriptor(ocispec.MediaTypeImageLayer, layer)},
	})
	if err != nil {
		return fmt.Errorf("hello image manifest: %w", err)
	}
	top := descriptor(ocispec.MediaTypeImageManifest, manifest)
	top.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH, Variant: variant()}
	top.Annotations = map[string]string{ocispec.AnnotationRefName: ref, "io.containerd.image.name": ref}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{top},
	})
	if err != nil {
		return fmt.Errorf("hello image index: %w", err)
	}

	tw := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		data []byte
	}{
		{ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{blobPath(layer), layer},
		{blobPath(config), config},
		{blobPath(manifest), manifest},
		{ocispec.ImageIndexFile, index},
	} {
		if err := writeFile(tw, f.name, 0o644, f.data); err != nil {
			return fmt.Errorf("hello image: %w", err)
		}
	}
	return tw.Close()
}

func layerOf(path string) ([]byte, error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return nil, err
	}
	if err := writeFile(tw, binaryInImage, 0o755, binary); err != nil {
		return nil, err
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func writeFile(tw *tar.Writer, name string, mode int64, data []byte) error {
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := tw.Write(data)
	return err
}

func descriptor(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

func blobPath(data []byte) string {
	return "blobs/sha256/" + digest.FromBytes(data).Encoded()
}

// variant is what containerd's platform matcher expects for 32-bit ARM; v6 runs on every ARM board.
func variant() string {
	if runtime.GOARCH == "arm" {
		return "v6"
	}
	return ""
}
