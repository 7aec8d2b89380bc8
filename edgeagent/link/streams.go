package link

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"

	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/wire"
)

// maxServed is how many streams a device serves at a time.
const maxServed = 64

// streams are those of one connection; they end with it.
type streams struct {
	serve func(ctx context.Context, req wire.StreamRequest, s wire.Stream)
	place wire.Place
	log   *slog.Logger
	out   chan streamFrame

	mu     sync.Mutex
	ends   map[string]*wire.Endpoint
	closed bool
}

type streamFrame struct {
	topic string
	b     []byte
}

func newStreams(serve func(context.Context, wire.StreamRequest, wire.Stream), p wire.Place, log *slog.Logger) *streams {
	return &streams{serve: serve, place: p, log: log, out: make(chan streamFrame, streamQueue), ends: map[string]*wire.Endpoint{}}
}

// open serves a stream that the hub asks for.
func (s *streams) open(o *wire.Open) {
	topic := wire.StreamUp(s.place.Cluster, s.place.Node, o.Stream)
	e := wire.NewEndpoint(o.Key, false, func(f []byte) {
		select {
		case s.out <- streamFrame{topic, f}:
		default: // the credits of so many streams together; the hub will see a gap and end the stream
		}
	})
	var req wire.StreamRequest
	err := json.Unmarshal(o.Request, &req)
	s.mu.Lock()
	busy := len(s.ends) >= maxServed || s.closed
	if err == nil && !busy && s.serve != nil {
		s.ends[o.Stream] = e
	}
	s.mu.Unlock()
	e.Start() // from here on the hub sends
	switch {
	case err != nil:
		_ = e.Close(wire.StreamEnd{Reason: "BadRequest", Message: fmt.Sprintf("stream request cannot be read: %v", err)})
	case s.serve == nil:
		_ = e.Close(wire.StreamEnd{Reason: "MethodNotAllowed", Message: "this node serves no streams"})
	case busy:
		_ = e.Close(wire.StreamEnd{Reason: "TooManyRequests", Message: fmt.Sprintf("this node serves %d streams already", maxServed)})
	default:
		go s.run(o.Stream, req, e)
	}
}

func (s *streams) run(id string, req wire.StreamRequest, e *wire.Endpoint) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-e.Done()
		cancel()
	}()
	end := wire.StreamEnd{}
	if err := contain.Do(s.log, "link/stream", req.Namespace+"/"+req.Pod, func() error { s.serve(ctx, req, e); return nil }); err != nil {
		end = wire.StreamEnd{Reason: "InternalError", Message: err.Error()}
	}
	_ = e.Close(end)
	cancel()
	s.mu.Lock()
	delete(s.ends, id)
	s.mu.Unlock()
}

func (s *streams) deliver(id string, frame []byte) {
	s.mu.Lock()
	e := s.ends[id]
	s.mu.Unlock()
	if e != nil {
		e.Deliver(frame)
	}
}

// cut ends all streams: the link is gone.
func (s *streams) cut() {
	s.mu.Lock()
	s.closed = true
	ends := s.ends
	s.ends = map[string]*wire.Endpoint{}
	s.mu.Unlock()
	for _, e := range ends {
		e.Fail(fmt.Errorf("%w: the link to the hub is gone", wire.ErrStreamCut))
	}
}
