package volume

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// hostPath is a path of the node itself, which its pods neither own nor remove.
type hostPath struct{}

func (hostPath) Supports(v *corev1.Volume) bool { return v.HostPath != nil }

func (hostPath) Mount(_ context.Context, r Request) error { return checkHostPath(r.Volume.HostPath) }

func (hostPath) Unmount(context.Context, Request) error { return nil }

func (hostPath) ReadOnly(*corev1.Volume) bool { return false }

// Locate makes a directory where nothing is: the volume's type allows that, or Mount has refused it.
func (hostPath) Locate(r Request) (string, error) {
	v := r.Volume
	if _, err := os.Stat(v.HostPath.Path); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(v.HostPath.Path, 0o755); err != nil {
			return "", err
		}
	}
	return v.HostPath.Path, nil
}

// checkHostPath checks, or makes, what a hostPath volume names.
func checkHostPath(v *corev1.HostPathVolumeSource) error {
	want := corev1.HostPathUnset
	if v.Type != nil {
		want = *v.Type
	}
	fi, err := os.Stat(v.Path)
	switch want {
	case corev1.HostPathUnset:
		return nil
	case corev1.HostPathDirectoryOrCreate:
		if errors.Is(err, os.ErrNotExist) {
			return os.MkdirAll(v.Path, 0o755)
		}
	case corev1.HostPathFileOrCreate:
		if errors.Is(err, os.ErrNotExist) {
			f, err := os.OpenFile(v.Path, os.O_CREATE|os.O_WRONLY|unix.O_NONBLOCK, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %s: %w", v.Path, err)
	}
	mode, ok := fi.Mode(), false
	switch want {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		ok = mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		ok = mode.IsRegular()
	case corev1.HostPathSocket:
		ok = mode&os.ModeSocket != 0
	case corev1.HostPathCharDev:
		ok = mode&os.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		ok = mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", v.Path, want)
	}
	return nil
}
