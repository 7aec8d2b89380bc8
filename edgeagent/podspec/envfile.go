package podspec

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// envFileMax is how long a file of variables may be, in bytes. An init container writes it, so it may be anything.
const envFileMax = 64 << 10

// fileValue is the value of a key in a file that an earlier container has left in a volume; false: it is not there, and
// need not be.
func fileValue(a Attempt, r *corev1.FileKeySelector) (string, bool, error) {
	root, err := a.Volumes.MountSource(a.Pod, corev1.VolumeMount{Name: r.VolumeName})
	if err != nil {
		return "", false, err
	}
	b, err := a.Volumes.ReadFile(root, r.Path, envFileMax)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isTrue(r.Optional):
		return "", false, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", false, fmt.Errorf("file %q is not in volume %q; an init container has to write it", r.Path, r.VolumeName)
	case err != nil:
		return "", false, fmt.Errorf("couldn't parse env file: %s: %w", r.Path, errors.Unwrap(err)) // without the node's path
	}
	value, err := envFileKey(string(b), r.Key)
	if err != nil {
		return "", false, fmt.Errorf("couldn't parse env file: %s: %w", r.Path, err)
	}
	if value == "" && !isTrue(r.Optional) {
		return "", false, fmt.Errorf("environment variable key %q not found in file %q", r.Key, r.Path)
	}
	return value, value != "", nil
}

// envFileKey finds a key in lines of NAME='value'. The format is upstream's: a value stands in single quotes, as it is,
// and may go over several lines; comments begin with #; a space after = makes the value empty, one before it is an error.
// Like upstream it reads no further than the key.
func envFileKey(text, key string) (string, error) {
	for line := 1; text != ""; {
		rest, next, _ := strings.Cut(text, "\n")
		begin := line
		text, line = next, line+1
		rest = strings.TrimLeft(strings.TrimSuffix(rest, "\r"), " \t")
		if rest == "" || rest[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(rest, "=")
		switch {
		case !ok:
			return "", fmt.Errorf("line %d: missing '='", begin)
		case strings.TrimRight(name, " \t") == "":
			return "", fmt.Errorf("line %d: empty variable name", begin)
		case strings.TrimRight(name, " \t") != name:
			return "", fmt.Errorf("line %d: whitespace before '=' is not allowed", begin)
		case value != "" && strings.Contains(" \t", value[:1]):
			if name == key {
				return "", nil
			}
			continue
		case !strings.HasPrefix(value, "'"):
			return "", fmt.Errorf("line %d: value must be enclosed in single quotes", begin)
		}
		whole := value[1:]
		for !strings.Contains(whole, "'") {
			if text == "" {
				return "", fmt.Errorf("line %d: unclosed single quote", begin)
			}
			more, next, _ := strings.Cut(text, "\n")
			whole += "\n" + strings.TrimSuffix(more, "\r")
			text, line = next, line+1
		}
		value, after, _ := strings.Cut(whole, "'")
		if after = strings.TrimLeft(after, " \t"); after != "" && after[0] != '#' {
			return "", fmt.Errorf("line %d: unexpected content after closing quote", line-1)
		}
		if name == key {
			return value, nil
		}
	}
	return "", nil
}
