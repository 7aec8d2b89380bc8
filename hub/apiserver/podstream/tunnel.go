package podstream

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// tunnel is a WebSocket as a net.Conn: binary messages are a byte stream.
type tunnel struct {
	*websocket.Conn
	message io.Reader
	wmu     sync.Mutex
	once    sync.Once
}

var _ net.Conn = (*tunnel)(nil)

func (t *tunnel) Read(b []byte) (int, error) {
	for {
		if t.message == nil {
			kind, r, err := t.NextReader()
			if err != nil {
				if websocket.IsCloseError(err, websocket.CloseNormalClosure) || strings.Contains(err.Error(), "use of closed") {
					return 0, io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("the client sent a text message through the tunnel")
			}
			t.message = r
		}
		n, err := t.message.Read(b)
		if err == io.EOF {
			t.message = nil
			if n == 0 {
				continue
			}
			err = nil
		}
		return n, err
	}
}

func (t *tunnel) Write(b []byte) (int, error) {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	// The deadline is boundedConn's.
	if err := t.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (t *tunnel) Close() error {
	var err error
	t.once.Do(func() {
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = t.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
		err = t.Conn.Close()
	})
	return err
}

func (t *tunnel) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}
