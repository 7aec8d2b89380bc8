// Package desired decodes what the hub wants of this node: the pods, and what they are made of; Services and the nodes' places
// in the network; the node's own object. All of the agent works on one decoded Set.
package desired

import (
	"encoding/json"
	"log/slog"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"

	"petrel.dev/petrel/internal/kube"
	"petrel.dev/petrel/internal/wire"
	"petrel.dev/petrel/svcproxy"
)

// Set is a node's desired set, decoded. It is immutable; the objects in it are shared and read-only. An object that has not
// changed is the same one in the next Set, so comparing pointers shows what has. The zero value is empty.
type Set struct {
	Pods     map[string]*corev1.Pod // by UID
	Services []svcproxy.Service     // sorted by namespace and name
	Peers    []wire.Peer
	Node     *corev1.Node            // nil: the hub has not sent it yet
	Reclaims map[string]wire.Reclaim // volumes to remove, by the UIDs of their objects

	configMaps map[string]*corev1.ConfigMap // by namespace/name
	secrets    map[string]*corev1.Secret
	tokens     map[string]*wire.Token // by pod UID/audience
	classes    map[string]*nodev1.RuntimeClass
	claims     map[string]*kube.NodeClaim // by namespace/name
	decoded    map[wire.ID]decoded        // every member, for the next Decode
}

// decoded is one member; equal versions of an ID have equal values.
type decoded struct {
	version uint64
	value   any
}

// Decode decodes the members of a desired set; those that old has in the same version are taken from there. A member
// that does not decode is logged and left out: one bad object must not stop the others.
func Decode(objects []wire.Object, old *Set, log *slog.Logger) *Set {
	s := &Set{Pods: map[string]*corev1.Pod{}, configMaps: map[string]*corev1.ConfigMap{}, secrets: map[string]*corev1.Secret{},
		tokens: map[string]*wire.Token{}, classes: map[string]*nodev1.RuntimeClass{}, claims: map[string]*kube.NodeClaim{},
		Reclaims: map[string]wire.Reclaim{}, decoded: make(map[wire.ID]decoded, len(objects))}
	for _, o := range objects {
		d, ok := decoded{}, false
		if old != nil {
			d, ok = old.decoded[o.ID]
		}
		if !ok || d.version != o.Version {
			v := blank(o.Kind)
			if v == nil {
				continue
			}
			if err := json.Unmarshal(o.Data, v); err != nil {
				log.Error("desired object does not decode", "kind", o.Kind, "namespace", o.Namespace, "name", o.Name, "error", err)
				continue
			}
			d = decoded{o.Version, v}
		}
		s.decoded[o.ID] = d
		switch v := d.value.(type) {
		case *corev1.Pod:
			s.Pods[string(v.UID)] = v
		case *corev1.ConfigMap:
			s.configMaps[o.Namespace+"/"+o.Name] = v
		case *corev1.Secret:
			s.secrets[o.Namespace+"/"+o.Name] = v
		case *nodev1.RuntimeClass:
			s.classes[o.Name] = v
		case *kube.NodeClaim:
			s.claims[o.Namespace+"/"+o.Name] = v
		case *wire.Reclaim:
			s.Reclaims[o.UID] = *v
		case *wire.Token:
			s.tokens[v.PodUID+"/"+v.Audience] = v
		case *svcproxy.Service:
			s.Services = append(s.Services, *v)
		case *corev1.Node:
			s.Node = v
		case *wire.Peer:
			s.Peers = append(s.Peers, *v)
		}
	}
	slices.SortFunc(s.Services, func(a, b svcproxy.Service) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return s
}

// blank returns a new value of a kind to decode into; nil for a kind that this agent does not know.
func blank(k wire.Kind) any {
	switch k {
	case wire.KindPod:
		return new(corev1.Pod)
	case wire.KindConfigMap:
		return new(corev1.ConfigMap)
	case wire.KindSecret:
		return new(corev1.Secret)
	case wire.KindRuntimeClass:
		return new(nodev1.RuntimeClass)
	case wire.KindClaim:
		return new(kube.NodeClaim)
	case wire.KindReclaim:
		return new(wire.Reclaim)
	case wire.KindToken:
		return new(wire.Token)
	case wire.KindService:
		return new(svcproxy.Service)
	case wire.KindNode:
		return new(corev1.Node)
	case wire.KindPeer:
		return new(wire.Peer)
	}
	return nil
}

// ConfigMap returns the named ConfigMap, or nil.
func (s *Set) ConfigMap(namespace, name string) *corev1.ConfigMap {
	return s.configMaps[namespace+"/"+name]
}

// Secret returns the named Secret, or nil.
func (s *Set) Secret(namespace, name string) *corev1.Secret { return s.secrets[namespace+"/"+name] }

// Token returns the newest token made for a pod and an audience ("": the API server's), or nil.
func (s *Set) Token(podUID, audience string) *wire.Token { return s.tokens[podUID+"/"+audience] }

// RuntimeClass returns the named class, or nil.
func (s *Set) RuntimeClass(name string) *nodev1.RuntimeClass { return s.classes[name] }

// Claim returns the named claim with its volume, or nil.
func (s *Set) Claim(namespace, name string) *kube.NodeClaim { return s.claims[namespace+"/"+name] }

// ThisNode returns the node's own object; nil: the hub has not sent it yet.
func (s *Set) ThisNode() *corev1.Node { return s.Node }
