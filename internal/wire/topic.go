package wire

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Topic prefix of everything Petrel says on a broker.
const topicRoot = "petrel/"

// UpTopic carries frames from a node to its hub.
func UpTopic(cluster, node string) string { return topicRoot + cluster + "/" + node + "/up" }

// DownTopic carries frames from the hub to a node.
func DownTopic(cluster, node string) string { return topicRoot + cluster + "/" + node + "/down" }

// LiveTopic carries a connection's last words: the MQTT will of a node.
func LiveTopic(cluster, node string) string { return topicRoot + cluster + "/" + node + "/live" }

// StreamUp carries a stream's frames from a node.
func StreamUp(cluster, node, stream string) string {
	return topicRoot + cluster + "/" + node + "/s/" + stream + "/up"
}

// StreamDown carries a stream's frames to a node.
func StreamDown(cluster, node, stream string) string {
	return topicRoot + cluster + "/" + node + "/s/" + stream + "/down"
}

// TopicKind is what a topic is for, as ParseTopic returns it.
type TopicKind uint8

const (
	TopicUp TopicKind = iota + 1
	TopicDown
	TopicLive
	TopicStreamUp
	TopicStreamDown
)

// ParseTopic takes a topic apart. It accepts exactly the topics that the functions above make, and no wildcard.
func ParseTopic(topic string) (cluster, node, stream string, kind TopicKind, ok bool) {
	if strings.ContainsAny(topic, "+#\x00") || !strings.HasPrefix(topic, topicRoot) {
		return "", "", "", 0, false
	}
	p := strings.Split(topic[len(topicRoot):], "/")
	for _, s := range p {
		if s == "" {
			return "", "", "", 0, false
		}
	}
	switch {
	case len(p) == 3 && p[2] == "up":
		kind = TopicUp
	case len(p) == 3 && p[2] == "down":
		kind = TopicDown
	case len(p) == 3 && p[2] == "live":
		kind = TopicLive
	case len(p) == 5 && p[2] == "s" && p[4] == "up":
		kind, stream = TopicStreamUp, p[3]
	case len(p) == 5 && p[2] == "s" && p[4] == "down":
		kind, stream = TopicStreamDown, p[3]
	default:
		return "", "", "", 0, false
	}
	return p[0], p[1], stream, kind, true
}

// BrokerAddress turns a broker's URL (mqtt://, mqtts://) into the form that MQTT clients take, without user and password.
func BrokerAddress(u *url.URL) (string, error) {
	port := u.Port()
	switch u.Scheme {
	case "mqtt":
		return "tcp://" + net.JoinHostPort(u.Hostname(), cmp.Or(port, "1883")), nil
	case "mqtts":
		return "ssl://" + net.JoinHostPort(u.Hostname(), cmp.Or(port, "8883")), nil
	}
	return "", fmt.Errorf("broker URL %q: the scheme must be mqtt or mqtts, as in mqtts://user:password@broker.example:8883", u.Redacted())
}
