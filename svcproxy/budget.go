package svcproxy

// A carried TCP connection takes two sockets, and a pipe of two ends in each direction while the kernel splices.
const descriptorsPerConn = 6

const (
	// memoryPerConn is how much of the machine's memory one connection stands for: it takes about 20 KiB of it, so that all
	// together take less than a tenth.
	memoryPerConn = 256 << 10
	minConns      = 64
	maxConns      = 32768
)

// budget is what the proxy may use of the process and the machine. The agent's own work (its cache, pods, the link to the
// hub) keeps a quarter of the file descriptors, whatever clients do.
type budget struct {
	conns int // TCP connections
	flows int // UDP flows, of one descriptor each
}

// budgetFor computes the budget: half of the descriptors for TCP, an eighth for UDP, an eighth for listeners and DNS.
func budgetFor(descriptors, memory uint64) budget {
	b := budget{conns: maxConns, flows: maxFlowsAll}
	if memory > 0 {
		b.conns = int(min(uint64(b.conns), memory/memoryPerConn))
	}
	if descriptors > 0 {
		b.conns = int(min(uint64(b.conns), descriptors/2/descriptorsPerConn))
		b.flows = int(min(uint64(b.flows), descriptors/8))
	}
	b.conns, b.flows = max(b.conns, minConns), max(b.flows, minConns)
	return b
}
