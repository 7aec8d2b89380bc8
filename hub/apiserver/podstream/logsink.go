package podstream

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"petrel.dev/petrel/internal/contain"
)

// logSink is a client's side of a log. begin comes first; until then an error can be an ordinary HTTP error. One of end
// and abort comes then, unless a call has failed.
type logSink interface {
	begin() error
	// write sends bytes; with now, without waiting for more of them.
	write(p []byte, now bool) error
	end()
	// abort breaks the connection, so that the client does not take what it has for the whole log.
	abort()
	close() // called last, in any case
}

// httpLog is a log as the body of a response.
type httpLog struct{ x *stream }

func (l *httpLog) begin() error {
	l.x.W.Header().Set("Content-Type", "text/plain")
	l.x.W.WriteHeader(http.StatusOK)
	return http.NewResponseController(l.x.W).Flush()
}

func (l *httpLog) write(p []byte, now bool) error {
	if _, err := l.x.W.Write(p); err != nil || !now {
		return err
	}
	return http.NewResponseController(l.x.W).Flush()
}

func (l *httpLog) end() {}

func (l *httpLog) close() {}

func (l *httpLog) abort() { panic(http.ErrAbortHandler) }

// logProtocols are the subprotocols of a log over a WebSocket: bytes as they are, or as base64 text.
var logProtocols = []string{"binary.k8s.io", "base64.binary.k8s.io", ""}

// webSocketLog is a log as the messages of a websocket, without channels.
type webSocketLog struct {
	x    *stream
	gone context.CancelFunc // called when the client has gone
	conn *websocket.Conn    // nil until begin
	read chan struct{}      // closed when nothing more comes from the client
}

func (l *webSocketLog) begin() error {
	conn, err := l.x.upgradeWebSocket(logProtocols)
	if err != nil {
		return err
	}
	conn.SetReadLimit(maxMessage)
	l.conn, l.read = conn, make(chan struct{})
	go contain.Go(l.x.Log, "hub/apiserver/podstream/log", l.x.key(), l.awaitEnd)
	return nil
}

// awaitEnd reads until the client goes: a client of a log sends nothing but its close message.
func (l *webSocketLog) awaitEnd() {
	defer close(l.read)
	defer l.gone()
	for {
		if _, _, err := l.conn.NextReader(); err != nil {
			return
		}
	}
}

func (l *webSocketLog) write(p []byte, _ bool) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	if l.conn.Subprotocol() == "base64.binary.k8s.io" {
		return l.conn.WriteMessage(websocket.TextMessage, []byte(base64.StdEncoding.EncodeToString(p)))
	}
	return l.conn.WriteMessage(websocket.BinaryMessage, p)
}

func (l *webSocketLog) end() {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = l.conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(endWait))
	_ = l.conn.SetReadDeadline(time.Now().Add(endWait)) // for the client's own close message
	<-l.read
}

func (l *webSocketLog) abort() { l.close() }

func (l *webSocketLog) close() {
	if l.conn != nil {
		l.conn.Close()
	}
}
