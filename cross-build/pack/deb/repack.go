package deb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"

	"github.com/blakesmith/ar"
)

// repack compresses the files of a package that has them as they are. The packager's own compressor is an eighth worse than `zstd -19`, too
// much for the budget of a download.
func repack(w io.Writer, plain []byte, level int) error {
	in, out := ar.NewReader(bytes.NewReader(plain)), ar.NewWriter(w)
	if err := out.WriteGlobalHeader(); err != nil {
		return err
	}
	for {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read member: %w", err)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			return fmt.Errorf("read member %s: %w", head.Name, err)
		}
		// The control files stay as they are: a few KB, which every dpkg can read.
		if head.Name == "data.tar" {
			if body, err = compressed(body, level); err != nil {
				return err
			}
			head.Name, head.Size = "data.tar.zst", int64(len(body))
		}
		if err := out.WriteHeader(head); err != nil {
			return err
		}
		if _, err := out.Write(body); err != nil {
			return err
		}
	}
}

func compressed(b []byte, level int) ([]byte, error) {
	cmd := exec.Command("zstd", "-q", "-T1", "-"+strconv.Itoa(level), "--stdout") // the number of threads changes the bytes
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(b), &out, &complaint
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("zstd: %w: %s", err, complaint.Bytes())
	}
	return out.Bytes(), nil
}
