// Package commandtree has what completion, defaults, the manual and the reading of arguments all ask of the parser's tree of commands.
package commandtree

import (
	"strings"

	"github.com/alecthomas/kong"
)

// ClusterFlags are the flags of cli.Cluster, by which each command on the fleet chooses its cluster. They may also stand in front of the
// command.
var ClusterFlags = []string{"kubeconfig", "context", "namespace", "color"}

// Flags returns all visible flags of a command, its parents' first.
func Flags(n *kong.Node) (out []*kong.Flag) {
	for _, group := range n.AllFlags(true) {
		out = append(out, group...)
	}
	return out
}

// Name returns a command as one writes it, without the program: "rollout status".
func Name(n *kong.Node) string {
	if n.Parent == nil {
		return ""
	}
	return strings.TrimSpace(Name(n.Parent) + " " + n.Name)
}
