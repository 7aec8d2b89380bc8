package podstream

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"petrel.dev/petrel/internal/wire"
)

// Channels of the remotecommand protocol that the link does not have: how it ended (3), and since version 5 "this
// channel is closed" (255).
const (
	channelError = 3
	channelClose = 255
)

// endWait is how long a client may take to read the end before the connection goes.
const endWait = 5 * time.Second

// maxMessage bounds one message of a terminal, which is held whole, in bytes. Clients send 32 KiB.
const maxMessage = 512 << 10

// commandProtocols are what exec and attach speak, newest first; before version 4 the end is sent as text, and not at all
// when all went well. The empty one is a client that names none.
var commandProtocols = []string{"v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io", ""}

func (x *stream) upgradeWebSocket(protocols []string) (*websocket.Conn, error) {
	asked := websocket.Subprotocols(x.R)
	if len(asked) == 0 {
		asked = []string{""}
	}
	if !slices.ContainsFunc(asked, func(p string) bool { return slices.Contains(protocols, p) }) {
		http.Error(x.W, errUpgrade.Error(), http.StatusForbidden)
		return nil, errUpgrade
	}
	up := websocket.Upgrader{
		Subprotocols:    protocols,
		CheckOrigin:     func(*http.Request) bool { return true }, // crossSite has looked at it
		ReadBufferSize:  32 << 10,
		WriteBufferSize: 32 << 10,
	}
	return up.Upgrade(x.W, x.R, nil)
}

// webSocketTerminal is a terminal over a WebSocket: each message's first byte is its channel.
type webSocketTerminal struct {
	conn   *websocket.Conn
	base64 bool
	closes bool // version 5: channels can be closed one by one
	texts  bool // before version 4: an end that is an error is sent as text, any other is not
	mu     sync.Mutex
}

func (x *stream) webSocketTerminal() (terminal, error) {
	conn, err := x.upgradeWebSocket(commandProtocols)
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxMessage)
	p := conn.Subprotocol()
	return &webSocketTerminal{conn: conn, base64: strings.HasSuffix(p, "base64.channel.k8s.io"), closes: p == "v5.channel.k8s.io",
		texts: !strings.HasPrefix(p, "v")}, nil
}

func (t *webSocketTerminal) read(send func(wire.Channel, []byte) error, closed func(wire.Channel) error) {
	defer t.conn.Close()
	dead := false
	for {
		_, msg, err := t.conn.ReadMessage()
		if err != nil {
			return
		}
		if len(msg) == 0 {
			continue
		}
		if dead {
			continue
		}
		ch, data := msg[0], msg[1:]
		if t.closes && ch == channelClose {
			dead = len(data) == 1 && wire.Channel(data[0]) == wire.ChannelStdin && closed(wire.ChannelStdin) != nil
			continue
		}
		if t.base64 {
			ch -= '0'
			if data, err = base64.StdEncoding.DecodeString(string(data)); err != nil {
				return
			}
		}
		if c := wire.Channel(ch); (c == wire.ChannelStdin || c == wire.ChannelResize) && len(data) > 0 {
			if send(c, data) != nil {
				dead = true // the stream is over; go on reading until the client closes
			}
		}
	}
}

func (t *webSocketTerminal) write(ch wire.Channel, data []byte) error {
	return t.message(byte(ch), data)
}

func (t *webSocketTerminal) message(ch byte, data []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.conn.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	if t.base64 {
		return t.conn.WriteMessage(websocket.TextMessage, append([]byte{'0' + ch}, base64.StdEncoding.EncodeToString(data)...))
	}
	return t.conn.WriteMessage(websocket.BinaryMessage, append([]byte{ch}, data...))
}

func (t *webSocketTerminal) end(s *metav1.Status) {
	switch { // a client that has gone needs no status
	case !t.texts:
		_ = t.message(channelError, statusJSON(s))
	case s.Status != metav1.StatusSuccess:
		_ = t.message(channelError, []byte(s.Message))
	}
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = t.conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(endWait))
	// The client answers with its own close message, which ends read; it has this long.
	_ = t.conn.SetReadDeadline(time.Now().Add(endWait))
}
