package auth

import "petrel.dev/petrel/hub/auth/satoken"

// Component is a part of the hub that uses the API in process. It has the name of its counterpart in Kubernetes, because audit
// logs, RBAC's default roles, and tools that look at field managers know those names.
type Component struct {
	User User
	// Manager is the field manager that its writes are recorded under.
	Manager string
}

// The hub's own components. Their users are shared: read-only.
var (
	// Hub is the hub itself: for what it writes at its start, and what belongs to no other component.
	Hub = Component{
		User:    User{Name: "system:apiserver", Groups: []string{GroupMasters, GroupAuthenticated}},
		Manager: "petrel",
	}
	// Scheduler binds pods to nodes.
	Scheduler = Component{
		User:    User{Name: "system:kube-scheduler", Groups: []string{GroupAuthenticated}},
		Manager: "kube-scheduler",
	}
	// Dispatcher writes what nodes report, many nodes in one commit, so it has no node's name. As in Kubernetes, the status
	// fields of pods and nodes belong to "kubelet".
	Dispatcher = Component{
		User:    User{Name: "system:petrel:dispatcher", Groups: []string{GroupAuthenticated}},
		Manager: "kubelet",
	}
)

// Controller returns the component of the controller that Kubernetes knows by that name: "deployment-controller". Its
// user is the ServiceAccount of kube-system that Kubernetes runs the controller as.
func Controller(name string) Component {
	const namespace = "kube-system"
	return Component{
		User: User{
			Name:   satoken.Username(namespace, name),
			Groups: append(AccountGroups(namespace), GroupAuthenticated),
		},
		Manager: "kube-controller-manager",
	}
}
