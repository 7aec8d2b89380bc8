package auth

import (
	"net/http"
	"strings"
)

// bearerProtocol begins the WebSocket subprotocol by which a browser sends a token.
const bearerProtocol = "base64url.bearer.authorization.k8s.io."

// DropCredentials takes out of a request's headers what proves to the hub who the client is, and whom it wants to be: what the
// request is passed on to could use it in the client's place.
func DropCredentials(h http.Header) {
	h.Del("Authorization")
	for name := range h {
		if low := strings.ToLower(name); strings.HasPrefix(low, "impersonate-") || strings.HasPrefix(low, "x-remote-") {
			delete(h, name)
		}
	}
	var kept []string
	for _, line := range h.Values("Sec-Websocket-Protocol") {
		for _, p := range strings.Split(line, ",") {
			if p = strings.TrimSpace(p); p != "" && !strings.HasPrefix(p, bearerProtocol) {
				kept = append(kept, p)
			}
		}
	}
	h.Del("Sec-Websocket-Protocol")
	if len(kept) > 0 {
		h.Set("Sec-Websocket-Protocol", strings.Join(kept, ", "))
	}
}
