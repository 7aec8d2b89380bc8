// Package buildinfo says which Petrel this is: its own version and commit, and the Kubernetes API version that it serves.
package buildinfo

import (
	"runtime"
	"runtime/debug"
)

// Kubernetes is the release whose API Petrel serves, and whose libraries it is built with.
const Kubernetes = "v1.36.3"

// version is set by the Makefile (-ldflags -X); "dev" in a plain go build.
var version = "dev"

// Info describes a build.
type Info struct {
	Version    string `json:"version"`
	Commit     string `json:"commit,omitempty"` // from the Go tool's stamp; empty in builds without it
	Kubernetes string `json:"kubernetes"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

// Get returns what is known of the running binary.
func Get() Info {
	i := Info{Version: version, Kubernetes: Kubernetes, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				i.Commit = s.Value
			}
		}
	}
	return i
}

// GitVersion is the version as Kubernetes clients expect it: "v1.36.3+petrel-dev".
func GitVersion() string {
	return Kubernetes + "+petrel-" + version
}
