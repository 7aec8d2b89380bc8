package main

import "petrel.dev/petrel/edgeagent/programs"

// machineCommands are those that run a hub or a node, or work on their files.
type machineCommands struct {
	Up  upCmd  `cmd:"" group:"machine" help:"A whole cluster on this machine: hub and agent in one process."`
	Hub hubCmd `cmd:"" group:"machine" help:"Run the hub: the API, its state, and the link that agents dial."`

	Install   installCmd   `cmd:"" group:"machine" help:"Make hub or agent a service of this machine; upgrade it in place."`
	Uninstall uninstallCmd `cmd:"" group:"machine" help:"Take away what install has made, and end the pods of this node."`

	Doctor doctorCmd `cmd:"" group:"machine" help:"Check whether this machine can be a hub or a node, and say what to change."`

	Agent      agentCmd      `cmd:"" group:"machine" help:"Run the edge agent: this machine becomes a node."`
	Image      imageCmd      `cmd:"" group:"machine" help:"Bring images to this node without a registry; list and prune them."`
	Admin      adminCmd      `cmd:"" group:"machine" help:"Administrators' certificates of the hub on this machine: list, issue, revoke."`
	Secrets    secretsCmd    `cmd:"" group:"machine" help:"How Secrets are encrypted on the disk of the hub on this machine."`
	Backup     backupCmd     `cmd:"" group:"machine" help:"Write all that the hub on this machine is into one file, while it runs or not."`
	Restore    restoreCmd    `cmd:"" group:"machine" help:"Make a hub of such a file, on this machine or another one."`
	Kubeconfig kubeconfigCmd `cmd:"" group:"machine" help:"Print the admin kubeconfig of the hub on this machine."`
}

// inside returns the programs that agents of this binary run containers with, name → version; empty: the machine's.
func inside() map[string]string {
	out := map[string]string{}
	for _, p := range programs.Embedded() {
		out[p.Name] = p.Version
	}
	return out
}
