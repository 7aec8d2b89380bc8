package ctrd

import (
	"log/slog"
	"os"
	"strconv"
	"strings"
)

// agentOOMScore is how willingly the kernel's out-of-memory killer shall take the agent, and a containerd of its own:
// after everything else, as kubelet has it.
const agentOOMScore = -999

// spareSelf has the out-of-memory killer take this process as late as the kernel lets it say so, and returns that score.
// It is the least that a container can be given too: on a host without CAP_SYS_RESOURCE (a container, a user namespace)
// nothing below it can be set, and runc would refuse to start a container that asks for it.
func spareSelf(log *slog.Logger) int {
	score, err := leastScore("/proc/self/oom_score_adj")
	if err != nil {
		log.Warn("score for the out-of-memory killer cannot be set", "error", err)
	} else if score > agentOOMScore {
		log.Info("score for the out-of-memory killer is bounded on this host, that of containers too", "least", score)
	}
	return score
}

// leastScore lowers the score in an oom_score_adj file as far as the kernel lets it, but not below agentOOMScore, and
// returns it. What may be set is a range down to a bound that can only be found by trying.
func leastScore(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	works, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || works <= agentOOMScore {
		return works, err
	}
	set := func(score int) bool {
		return os.WriteFile(path, []byte(strconv.Itoa(score)), 0o644) == nil
	}
	if set(agentOOMScore) {
		return agentOOMScore, nil
	}
	for fails := agentOOMScore; works-fails > 1; {
		if mid := fails + (works-fails)/2; set(mid) {
			works = mid
		} else {
			fails = mid
		}
	}
	return works, nil
}
