package cli

// Commands are the verbs on a fleet, ready to be embedded in a kong command tree.
type Commands struct {
	Get          Get          `cmd:"" group:"fleet" help:"Show objects."`
	Describe     Describe     `cmd:"" group:"fleet" help:"Show objects in full, with their events."`
	Apply        Apply        `cmd:"" group:"fleet" help:"Create or change objects as files describe them."`
	Create       Create       `cmd:"" group:"fleet" help:"Create objects from files or flags."`
	Delete       Delete       `cmd:"" group:"fleet" help:"Remove objects."`
	Edit         Edit         `cmd:"" group:"fleet" help:"Change an object in an editor."`
	Patch        Patch        `cmd:"" group:"fleet" help:"Change fields of an object."`
	Diff         Diff         `cmd:"" group:"fleet" help:"Show what apply would change."`
	Logs         Logs         `cmd:"" group:"fleet" help:"Print what containers wrote."`
	Exec         Exec         `cmd:"" group:"fleet" help:"Run a command in a container."`
	Attach       Attach       `cmd:"" group:"fleet" help:"Connect to a container's main process."`
	PortForward  PortForward  `cmd:"" group:"fleet" name:"port-forward" help:"Forward local ports to a pod."`
	Scale        Scale        `cmd:"" group:"fleet" help:"Set how many pods a workload has."`
	Rollout      Rollout      `cmd:"" group:"fleet" help:"Follow and control rollouts."`
	Label        Label        `cmd:"" group:"fleet" help:"Set and remove labels."`
	Annotate     Annotate     `cmd:"" group:"fleet" help:"Set and remove annotations."`
	Taint        Taint        `cmd:"" group:"fleet" help:"Set and remove taints of nodes."`
	Cordon       Cordon       `cmd:"" group:"fleet" help:"Keep new pods off a node."`
	Uncordon     Uncordon     `cmd:"" group:"fleet" help:"Let new pods onto a node again."`
	Drain        Drain        `cmd:"" group:"fleet" help:"Empty a node."`
	Events       Events       `cmd:"" group:"fleet" help:"List what happened."`
	Wait         Wait         `cmd:"" group:"fleet" help:"Wait until objects are as they should be."`
	Explain      Explain      `cmd:"" group:"fleet" help:"Document the fields of a type."`
	APIResources APIResources `cmd:"" group:"fleet" name:"api-resources" help:"List what the server serves."`
}
