package dispatch

import "sync"

// roster is which devices are known: those whose key a Node has. Others ask it while the loop changes it. By device id.
type roster struct {
	mu  sync.RWMutex
	ids map[string]int // devices, and how many Nodes name them
}

func (r *roster) add(device string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = map[string]int{}
	}
	r.ids[device]++
}

func (r *roster) remove(device string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids[device]--; r.ids[device] <= 0 {
		delete(r.ids, device)
	}
}

func (r *roster) has(device string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ids[device] > 0
}
