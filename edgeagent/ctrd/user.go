package ctrd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/internal/safefile"
)

// maxUserFile bounds an image's /etc/passwd and /etc/group. Bytes.
const maxUserFile = 1 << 20

// user picks who the container runs as.
func (r *Runtime) user(s cruntime.ContainerSpec, config ocispec.ImageConfig) ([]oci.SpecOpts, error) {
	name := config.User
	if s.Security.RunAsUser != nil {
		name = strconv.FormatInt(*s.Security.RunAsUser, 10)
	} else if s.Security.NonRoot {
		user, _, _ := strings.Cut(config.User, ":")
		if n, err := strconv.Atoi(user); user == "" || err == nil && n == 0 {
			return nil, fmt.Errorf("%w: container has runAsNonRoot and image will run as root (set runAsUser, or use an image with another user)", cruntime.ErrConfig)
		} else if err != nil {
			return nil, fmt.Errorf("%w: container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root", cruntime.ErrConfig, user)
		}
	}
	if s.Security.NonRoot && name == "0" {
		return nil, fmt.Errorf("%w: container's runAsUser breaks non-root policy", cruntime.ErrConfig)
	}
	if name == "" {
		name = "0"
	}
	user, group, _ := strings.Cut(name, ":")
	if s.Security.RunAsGroup != nil {
		group = strconv.FormatInt(*s.Security.RunAsGroup, 10)
	}
	return []oci.SpecOpts{func(ctx context.Context, client oci.Client, c *containers.Container, spec *oci.Spec) error {
		return withRoot(ctx, client, c, func(root string) error {
			id, err := identify(root, user, group, !s.Security.StrictGroups)
			if err != nil {
				return fmt.Errorf("%w: user of image %s: %w", cruntime.ErrConfig, s.Image, err)
			}
			for _, g := range s.Security.Groups {
				id.groups = append(id.groups, uint32(g))
			}
			spec.Process.User.UID, spec.Process.User.GID = id.uid, id.gid
			spec.Process.User.AdditionalGids = []uint32{id.gid}
			for _, g := range id.groups {
				if !slices.Contains(spec.Process.User.AdditionalGids, g) {
					spec.Process.User.AdditionalGids = append(spec.Process.User.AdditionalGids, g)
				}
			}
			return nil
		})
	}}, nil
}

// withRoot mounts a container's file system, read-only, for as long as f runs. What is in it comes from the image, so only
// package safefile may open it. (The options of containerd's own library for this, oci.WithUser among them, open what is
// there with a plain open, which waits at a FIFO.)
func withRoot(ctx context.Context, client oci.Client, c *containers.Container, f func(root string) error) error {
	mounts, err := client.SnapshotService(c.Snapshotter).Mounts(ctx, c.SnapshotKey)
	if err != nil {
		return err
	}
	return mount.WithReadonlyTempMount(ctx, mounts, f)
}

// identity is who a process is.
type identity struct {
	uid, gid uint32
	groups   []uint32
}

// identify resolves a user and a group, each a name or a number and group maybe "", in an image. As upstream's runtime: a
// number that the image does not know is fine and of group 0, a name that it does not know is an error. groups asks for
// those that the image puts its user in.
func identify(root, user, group string, groups bool) (identity, error) {
	var id identity
	passwd, err := userFile(root, "/etc/passwd")
	if err != nil {
		return id, err
	}
	uid, numeric, err := number(user)
	if err != nil {
		return id, err
	}
	known := false
	name := ""
	for f := range fields(passwd) {
		if known = f[0] == user && !numeric || numeric && len(f) > 2 && f[2] == strconv.FormatUint(uint64(uid), 10); known {
			name = f[0]
			if id.uid, id.gid, err = entryIDs(f); err != nil {
				return id, err
			}
			break
		}
	}
	switch {
	case numeric:
		id.uid = uid
	case !known:
		return id, fmt.Errorf("its /etc/passwd has no user %q; set runAsUser to a number", user)
	}
	if group == "" && !groups {
		return id, nil
	}
	list, err := userFile(root, "/etc/group")
	if err != nil {
		return id, err
	}
	if group != "" {
		if id.gid, err = groupID(list, group); err != nil {
			return id, err
		}
	}
	for f := range fields(list) {
		if groups && name != "" && len(f) > 3 && f[0] != name && slices.Contains(strings.Split(f[3], ","), name) {
			if gid, numeric, err := number(f[2]); err == nil && numeric {
				id.groups = append(id.groups, gid)
			}
		}
	}
	return id, nil
}

// entryIDs are the user and the group of a line of /etc/passwd.
func entryIDs(f []string) (uid, gid uint32, err error) {
	if len(f) > 3 {
		u, ok, err1 := number(f[2])
		g, ok2, err2 := number(f[3])
		if err := errors.Join(err1, err2); err != nil || ok && ok2 {
			return u, g, err
		}
	}
	return 0, 0, fmt.Errorf("its /etc/passwd has no numbers for user %q", f[0])
}

func groupID(list []byte, group string) (uint32, error) {
	gid, numeric, err := number(group)
	if err != nil || numeric {
		return gid, err
	}
	for f := range fields(list) {
		if f[0] == group && len(f) > 2 {
			if gid, numeric, err := number(f[2]); err == nil && numeric {
				return gid, nil
			}
		}
	}
	return 0, fmt.Errorf("its /etc/group has no group %q; set runAsGroup to a number", group)
}

// number reads an ID. false: it is a name. The OCI runtime takes none above the largest int32.
func number(s string) (id uint32, numeric bool, err error) {
	n, err := strconv.Atoi(s)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false, nil
	}
	if err != nil || n < 0 || n > math.MaxInt32 {
		return 0, true, fmt.Errorf("ID %s is out of range: 0 to %d", s, math.MaxInt32)
	}
	return uint32(n), true, nil
}

// userFile reads a file of users or groups; an image need not have one.
func userFile(root, name string) ([]byte, error) {
	b, err := safefile.ReadInRoot(root, name, maxUserFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		var p *os.PathError
		if errors.As(err, &p) { // the path is that of a mount of the moment
			err = p.Err
		}
		return nil, fmt.Errorf("its %s cannot be used: %w", name, err)
	}
	return b, nil
}

// fields yields the lines of a file of users or groups, cut at their colons.
func fields(file []byte) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for line := range bytes.Lines(file) {
			f := strings.Split(strings.TrimSpace(string(line)), ":")
			if f[0] != "" && !strings.HasPrefix(f[0], "#") && !yield(f) {
				return
			}
		}
	}
}
