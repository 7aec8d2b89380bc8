package doctor

import (
	"fmt"

	"petrel.dev/petrel/internal/clock"
)

// Sync is whether something keeps the machine's clock right.
type Sync int

// SyncUnknown is for machines that cannot be asked.
const (
	SyncUnknown Sync = iota
	Synced
	Unsynced
)

// clockSet looks whether the time can be right, and stays so. Certificates and tokens are not valid at a time before they were made.
func clockSet(m Machine) Finding {
	own := len(m.glob("sys/class/rtc/rtc*")) > 0
	if !clock.Sane(m.Now).Equal(m.Now) {
		f := Finding{Result: Fail, What: fmt.Sprintf("the clock shows the year %d", m.Now.Year()),
			Do: "set the time: `timedatectl set-ntp true`, with a network; or `date -s`"}
		if !own {
			f.What += ", and this board has none of its own"
		}
		return f
	}
	f := Finding{Result: OK, What: m.Now.UTC().Format("2006-01-02 15:04 UTC")}
	switch {
	case m.Sync == Unsynced:
		f.Result, f.What = Warn, f.What+", not synchronised with a time server"
		f.Do = "switch it on: `timedatectl set-ntp true`, or install chrony; without a network, set the time by hand"
		if !own {
			f.What += "; the board has no clock of its own, so that after a power cut the time is that of the last shutdown"
		}
	case m.Sync == Synced:
		f.What += ", synchronised"
	}
	return f
}
