package svcproxy

import (
	"net/netip"

	"petrel.dev/petrel/svcproxy/topology"
)

// Table is everything the proxy and the DNS serve. Apply makes it so; it is always the whole truth, never a difference.
type Table struct {
	Services  []Service
	HostPorts []HostPort
	Zone      string // this node's, "" for none; endpoints that are hinted for it are preferred
}

// Service is a Kubernetes Service joined with its endpoints, cut down to what a node needs.
type Service struct {
	Namespace    string       `json:"ns"`
	Name         string       `json:"name"`
	ClusterIPs   []netip.Addr `json:"ips,omitempty"` // empty: headless (or ExternalName)
	ExternalIPs  []netip.Addr `json:"externalIPs,omitempty"`
	ExternalName string       `json:"externalName,omitempty"`
	Ports        []Port       `json:"ports,omitempty"`
	Endpoints    []Endpoint   `json:"endpoints,omitempty"`
	// LoadBalancer says to listen also on this node's own addresses at Port.Port.
	LoadBalancer bool `json:"lb,omitempty"`
	// Filtered says that only clients in SourceRanges may use the load balancer's ports (node ports stay open, as in Kubernetes).
	Filtered     bool           `json:"filtered,omitempty"`
	SourceRanges []netip.Prefix `json:"sources,omitempty"`
	// Created is when the Service was made, in Unix seconds: of two that want one port, the older has it.
	Created int64 `json:"created,omitempty"`
	// AffinitySeconds > 0: ClientIP session affinity with that time-out.
	AffinitySeconds int32 `json:"affinity,omitempty"`
	// LocalOnly*: use only endpoints on this node for traffic from inside (ClusterIP) or outside (NodePort, LoadBalancer).
	LocalOnlyInternal bool `json:"localInternal,omitempty"`
	LocalOnlyExternal bool `json:"localExternal,omitempty"`
	PublishNotReady   bool `json:"publishNotReady,omitempty"`
	// HealthPort != 0: on this port of the node's addresses HTTP requests get as answer how many ready endpoints the node has.
	HealthPort uint16 `json:"health,omitempty"`
}

// Port is one port of a Service.
type Port struct {
	Name     string   `json:"name,omitempty"`
	Protocol Protocol `json:"proto"`
	Port     uint16   `json:"port"`
	NodePort uint16   `json:"nodePort,omitempty"`
}

// Protocol is TCP or UDP.
type Protocol string

const (
	TCP Protocol = "TCP"
	UDP Protocol = "UDP"
)

// Endpoint is one address behind a Service.
type Endpoint struct {
	Addr        netip.Addr        `json:"ip"`
	Ports       map[string]uint16 `json:"ports"` // by Port.Name ("" for an unnamed port); key "name/UDP" never occurs: names are unique in a Service
	Hostname    string            `json:"host,omitempty"`
	Node        string            `json:"node,omitempty"` // of Services with LocalOnly* or HealthPort; of others it may be left out
	Ready       bool              `json:"ready,omitempty"`
	Serving     bool              `json:"serving,omitempty"`
	Terminating bool              `json:"terminating,omitempty"`
	topology.Hints
}

// HostPort forwards a port of this node to a pod's.
type HostPort struct {
	HostIP   netip.Addr // unspecified: all addresses of the node
	Port     uint16
	Protocol Protocol
	Target   netip.AddrPort
}
