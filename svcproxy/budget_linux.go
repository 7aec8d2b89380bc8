package svcproxy

import "golang.org/x/sys/unix"

// machineBudget is the budget on this machine. Go's runtime has raised the soft limit of descriptors to the hard one by
// the time that main runs.
func machineBudget() budget {
	var limit unix.Rlimit
	var info unix.Sysinfo_t
	var memory uint64
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		limit.Cur = 0
	}
	if unix.Sysinfo(&info) == nil {
		memory = uint64(info.Totalram) * uint64(info.Unit)
	}
	return budgetFor(limit.Cur, memory)
}
