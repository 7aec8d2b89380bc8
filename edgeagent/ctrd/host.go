package ctrd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	apparmorhost "github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"petrel.dev/petrel/edgeagent/cruntime"
	"petrel.dev/petrel/edgeagent/programs"
)

// Host finds out, once, what this machine can enforce.
func (r *Runtime) Host(ctx context.Context) cruntime.Host {
	r.hostOnce.Do(func() {
		_, err := os.Stat("/sys/fs/selinux/enforce")
		r.host = cruntime.Host{AppArmor: apparmorhost.HostSupports(), SELinux: err == nil, RecursiveReadOnly: r.recursiveReadOnly(ctx)}
	})
	return r.host
}

// recursiveReadOnly reports whether kernel (5.12) and runc (1.1) can make a mount read-only with all that is below it.
func (r *Runtime) recursiveReadOnly(ctx context.Context) bool {
	// Nothing at all, asked of nothing: a kernel that has the call finds fault with the file descriptor.
	var attr unix.MountAttr
	if err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &attr); errors.Is(err, unix.ENOSYS) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, r.programs.Path(programs.Runc), "features").Output()
	if err != nil {
		return false
	}
	var f struct {
		MountOptions []string `json:"mountOptions"`
	}
	return json.Unmarshal(out, &f) == nil && slices.Contains(f.MountOptions, "rro")
}

// defaultProfile is the AppArmor profile of containers that name no other. It is containerd's, loaded when first needed.
const defaultProfile = "petrel-default"

// loadedProfiles is the kernel's list of AppArmor profiles, a line each: "name (mode)".
const loadedProfiles = "/sys/kernel/security/apparmor/profiles"

// appArmor confines a container by the profile it asks for, where the kernel has AppArmor. The node has refused before
// what cannot be had. A container that asks for nothing gets the default profile, which load loads; where that fails it
// runs without, as it would on a kernel without AppArmor.
func (r *Runtime) appArmor(s cruntime.Security, supported bool, load func(profile string) error) (oci.SpecOpts, error) {
	switch {
	case s.Privileged || s.AppArmorUnconfined || !supported && s.AppArmorProfile == "":
		return nil, nil
	case s.AppArmorProfile == "":
		err := load(defaultProfile)
		if err != nil && s.AppArmorDefault {
			return nil, fmt.Errorf("%w: the default AppArmor profile cannot be loaded: %v", cruntime.ErrConfig, err)
		}
		if err != nil {
			r.cfg.Log.Warn("the default AppArmor profile cannot be loaded, containers that do not ask for it run without", "error", err)
			return nil, nil
		}
		return apparmor.WithProfile(defaultProfile), nil
	}
	list, err := os.ReadFile(loadedProfiles)
	if err != nil {
		return nil, fmt.Errorf("%w: AppArmor profiles of this node: %v", cruntime.ErrConfig, err)
	}
	if !profileLoaded(list, s.AppArmorProfile) {
		return nil, fmt.Errorf("%w: apparmor profile not found %s: load it on this node with apparmor_parser", cruntime.ErrConfig, s.AppArmorProfile)
	}
	return apparmor.WithProfile(s.AppArmorProfile), nil
}

func profileLoaded(list []byte, name string) bool {
	for line := range bytes.Lines(list) {
		if have, _, ok := strings.Cut(string(line), " ("); ok && have == name {
			return true
		}
	}
	return false
}
