package node

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/internal/board"
	"petrel.dev/petrel/internal/kube"
)

// hotUntil is the temperature, in thousandths of a degree, below which a board that was at board.Hot no longer counts as hot.
const hotUntil = 75_000

// boardCalm is how long a fault of the board must be over before its condition is. Voltages and temperatures come and go with the
// load, and each change is a write on the hub's card.
const boardCalm = 10 * time.Minute

// boardLabels returns what the machine is, as labels of its Node.
func boardLabels(root fs.FS) map[string]string {
	out := map[string]string{}
	if model := board.Slug(board.TreeModel(root)); model != "" {
		out[kube.BoardLabel] = model
	}
	if serial := board.Slug(board.Serial(root)); serial != "" {
		out[kube.SerialLabel] = serial
	}
	return out
}

// setter sets a condition of the Node.
type setter func(kind corev1.NodeConditionType, on bool, reason, message string)

// boardConditions sets how the board is: a condition for each thing that the machine can measure, true while it needs attention. Its
// message has no number that changes while the state does not, or a warm day would be a stream of writes. A sensor that does not
// answer now, as happens, leaves its condition as it was. The caller holds mu.
func (n *Node) boardConditions(now time.Time, set setter) {
	keep := func(kind corev1.NodeConditionType) {
		if c := kube.FindCondition(n.conditions, kind); c != nil {
			set(kind, c.Status == corev1.ConditionTrue, c.Reason, c.Message)
		}
	}
	supply := board.ReadSupply(n.root)
	if supply.Measured {
		n.setSupply(now, supply, set)
	} else {
		keep(kube.UnderVoltageCondition)
	}
	slowed, measured := board.Slowed(n.root)
	if !measured && !supply.Complete {
		keep(kube.ThrottledCondition)
	} else {
		slowed = slowed || slices.Contains(supply.Now, board.Throttled) || slices.Contains(supply.Now, board.Capped)
		if n.lasting(kube.ThrottledCondition, now, slowed, boardCalm) {
			set(kube.ThrottledCondition, true, "ProcessorSlowed", "the processor is kept below its frequency, because of heat or low voltage: cool the board, and see to its supply")
		} else {
			set(kube.ThrottledCondition, false, "FullSpeed", "the processor is not slowed down")
		}
	}
	if milli, _, ok := board.Temperature(n.root); ok {
		hot := milli >= board.Hot || milli >= hotUntil && kube.IsConditionTrue(n.conditions, kube.TemperatureCondition)
		if n.lasting(kube.TemperatureCondition, now, hot, boardCalm) {
			set(kube.TemperatureCondition, true, "Hot", fmt.Sprintf("the board was at %d °C or more in the last minutes: cool it", board.Hot/1000))
		} else {
			set(kube.TemperatureCondition, false, "Cool", fmt.Sprintf("the board is below %d °C", board.Hot/1000))
		}
	} else {
		keep(kube.TemperatureCondition)
	}
	if list := board.ReadWear(n.root); len(list) > 0 {
		setWear(list, set)
	} else {
		keep(kube.WearCondition)
	}
}

// setSupply sets the condition of the board's voltage. What was before is worth knowing and no fault of now: it stays until the board
// is switched off.
func (n *Node) setSupply(now time.Time, s board.Supply, set setter) {
	switch low := slices.Contains(s.Now, board.LowVoltage); {
	case n.lasting(kube.UnderVoltageCondition, now, low, boardCalm):
		set(kube.UnderVoltageCondition, true, "LowVoltage", "the voltage of the board is too low: use the power supply that was made for it, with a short cable")
	case slices.Contains(s.Before, board.LowVoltage):
		set(kube.UnderVoltageCondition, false, "LowVoltageBefore", "the voltage is as it should be, but was too low since the board was switched on")
	default:
		set(kube.UnderVoltageCondition, false, "VoltageOK", "the voltage is as it should be")
	}
}

// setWear sets the condition of the cards that report their wear.
func setWear(list []board.Wear, set setter) {
	var texts []string
	for _, w := range list {
		texts = append(texts, w.String())
	}
	message := strings.Join(texts, "; ")
	if slices.ContainsFunc(list, board.Wear.Worn) {
		set(kube.WearCondition, true, "Worn", message+": replace it soon")
	} else {
		set(kube.WearCondition, false, "NotWorn", message)
	}
}

// lasting reports whether something is so, or was within calm. The caller holds mu.
func (n *Node) lasting(kind corev1.NodeConditionType, now time.Time, on bool, calm time.Duration) bool {
	if on {
		n.pressed[kind] = now
		return true
	}
	at, ok := n.pressed[kind]
	return ok && now.Sub(at) < calm
}
