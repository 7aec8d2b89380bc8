// Package ctrd is the cruntime.Runtime on containerd, and the only place that talks to it.
//
// A pod has no pause container. Its sandbox is made and pinned by this package: an IPC and a UTS namespace bound to
// files, a /dev/shm, and a parent cgroup; the network namespace comes from outside. Containers join by path, and all
// containers of a pod share one shim (the runc.v2 group annotation). The pins live below RunDir, which is in memory: a
// reboot wipes them, and a sandbox that is made again gets a new ID, by which podrun sees what happened.
//
//	RUN/pods/<uid>/{id,ipc,uts,shm}      the sandbox
//	RUN/containerd/                      state and socket of a private containerd
//	DATA/containerd/{root,config.toml}   what of it must survive a reboot
//
// How a container ended is written on containerd's own record of it, as a label, before its task is deleted: the record
// survives reboots, the task does not. A record without either ended unseen.
//
// Without an address and without a containerd on the machine, Open starts the distribution's containerd as a private
// child in a session of its own. It outlives the agent, and the next agent finds it by its socket.
package ctrd
