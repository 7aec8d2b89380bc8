package hub

import (
	"context"

	"petrel.dev/petrel/hub/apiserver/fairness"
	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control/flowcontrol"
)

// requestSeats is how many requests of all priority levels are worked on at one time, an expensive list counting as up to ten: upstream's
// --max-requests-inflight.
const requestSeats = 400

// fairness returns what makes requests wait for their turn.
func (h *Hub) fairness() *fairness.Gate {
	return fairness.New(fairness.Config{
		Objects: h.objects, Seats: requestSeats,
		Count: func(ctx context.Context, prefix string) int {
			page, err := h.db.List(ctx, prefix, "", 1, 0) // in memory, and it counts those behind the first
			if err != nil {
				return 0 // the request will fail by itself
			}
			return len(page.Entries) + page.Remain
		},
	})
}

// priorityLevels keeps the objects that requests are classified by. Its users have upstream's names.
func (h *Hub) priorityLevels() *flowcontrol.Controller {
	producer, consumer := auth.Hub, auth.Hub
	producer.Manager, consumer.Manager = flowcontrol.Producer, flowcontrol.Consumer
	return flowcontrol.New(flowcontrol.Config{
		Objects: h.registry.ClientAs(producer), Status: h.registry.ClientAs(consumer), Log: h.part("flowcontrol"),
	})
}
