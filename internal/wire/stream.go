package wire

import (
	"context"
)

// StreamRequest opens a stream from the hub to a pod on a node, or to the node itself.
type StreamRequest struct {
	Kind      StreamKind `json:"kind"`
	PodUID    string     `json:"podUID"`
	Namespace string     `json:"namespace"`
	Pod       string     `json:"pod"`
	Container string     `json:"container,omitempty"`

	// exec and attach
	Command                    []string `json:"command,omitempty"`
	Stdin, Stdout, Stderr, TTY bool     `json:",omitempty"`

	// logs: JSON of v1.PodLogOptions
	Log []byte `json:"log,omitempty"`

	// port-forward, connect and node
	Port int32 `json:"port,omitempty"`
}

// StreamKind says what a stream is for.
type StreamKind string

const (
	StreamExec   StreamKind = "exec"
	StreamAttach StreamKind = "attach"
	StreamLogs   StreamKind = "logs"
	// StreamPortForward reaches what listens on the loopback of the pod's network.
	StreamPortForward StreamKind = "portforward"
	// StreamConnect reaches what listens on the pod's own address, as a connection from another pod would. The node ends
	// ChannelStderr, which carries nothing, when the connection stands: until then the stream's end says why it does not.
	StreamConnect StreamKind = "connect"
	// StreamNode reaches what the agent itself serves over HTTP or, with a port, what listens there on the node's own address. It
	// names no pod; it begins as StreamConnect does.
	StreamNode StreamKind = "node"
	// StreamFetch asks the node to have the images of a pod that is to come. It names no pod; the request follows on ChannelStdin, a
	// kube.ImageFetch as JSON, to that channel's end. The stream's end says when they are there, or why one is not. An agent that does not know it
	// ends it with NotFound or BadRequest, and has no images ahead.
	StreamFetch StreamKind = "fetch"
)

// Channel separates what one stream carries. The numbers are those of Kubernetes' remotecommand protocol.
type Channel uint8

const (
	ChannelStdin  Channel = 0
	ChannelStdout Channel = 1 // also: log bytes. Port-forward and connect use Stdin (down) and Stdout (up)
	ChannelStderr Channel = 2
	ChannelResize Channel = 4 // JSON {"Width":80,"Height":24}, down only
)

// Stream is one end of an open stream. Send blocks while the peer has given no credit. One goroutine may send while
// another receives. Both ends see the same interface.
type Stream interface {
	// Send delivers data on a channel, in order. The stream keeps no reference to data.
	Send(ctx context.Context, ch Channel, data []byte) error
	// CloseSend says that no more data follows on a channel (for example stdin's end of file).
	CloseSend(ctx context.Context, ch Channel) error
	// Recv returns the next data of any channel. A nil slice with nil error is that channel's end (CloseSend).
	// After the peer's Close it returns *StreamEnd; after a cut link another error.
	Recv(ctx context.Context) (Channel, []byte, error)
	// Close ends the stream; end travels to the peer as the last frame. Calling it again does nothing.
	Close(end StreamEnd) error
}

// StreamEnd is how a stream ended: an exit code of a process, or a reason why it could not run.
type StreamEnd struct {
	ExitCode int    `json:"exitCode,omitempty"`
	Reason   string `json:"reason,omitempty"`  // empty: ended as it should; otherwise a metav1.StatusReason such as NotFound, BadRequest, InternalError
	Message  string `json:"message,omitempty"` // for people
}

func (e *StreamEnd) Error() string {
	if e.Reason == "" && e.ExitCode == 0 {
		return "stream ended"
	}
	return e.Message
}
