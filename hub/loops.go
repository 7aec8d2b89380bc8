package hub

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sync/errgroup"

	"petrel.dev/petrel/hub/auth"
	"petrel.dev/petrel/hub/control"
	"petrel.dev/petrel/hub/control/bootstrap"
	"petrel.dev/petrel/hub/control/cronjob"
	"petrel.dev/petrel/hub/control/daemonset"
	"petrel.dev/petrel/hub/control/deployment"
	"petrel.dev/petrel/hub/control/disruption"
	"petrel.dev/petrel/hub/control/endpointmirror"
	"petrel.dev/petrel/hub/control/endpoints"
	"petrel.dev/petrel/hub/control/gc"
	"petrel.dev/petrel/hub/control/job"
	"petrel.dev/petrel/hub/control/loadbalancer"
	"petrel.dev/petrel/hub/control/namespace"
	"petrel.dev/petrel/hub/control/node"
	"petrel.dev/petrel/hub/control/podgc"
	"petrel.dev/petrel/hub/control/quota"
	"petrel.dev/petrel/hub/control/replicaset"
	"petrel.dev/petrel/hub/control/replicationcontroller"
	"petrel.dev/petrel/hub/control/schedule"
	"petrel.dev/petrel/hub/control/serviceaccount"
	"petrel.dev/petrel/hub/control/serviceaddress"
	"petrel.dev/petrel/hub/control/statefulset"
	"petrel.dev/petrel/hub/control/ttlafterfinished"
	"petrel.dev/petrel/hub/control/volumeprotection"
	"petrel.dev/petrel/hub/prefetch"
	"petrel.dev/petrel/internal/contain"
	"petrel.dev/petrel/internal/lean"
)

// runner is any part with the one lifecycle.
type runner interface {
	Run(ctx context.Context) error
}

// loops runs everything that acts on the API from inside the hub: none of them depends on another being there. Each has the
// user name that Kubernetes gives to its counterpart.
func (h *Hub) loops(ctx context.Context) error {
	client := h.registry.Client()
	as := func(controller string) control.Client { return h.registry.ClientAs(auth.Controller(controller)) }
	events := control.NewRecorder(client, h.part("events"))
	nodes, err := node.New(node.Config{
		Client: as("node-controller"), Events: events.As("node-controller"), Presence: h.dispatch, PodCIDR: h.cfg.ClusterCIDR, Log: h.part("node"),
	})
	if err != nil {
		return err
	}
	images := prefetch.New(prefetch.Config{Objects: client, Nodes: h.dispatch, Events: events.As("prefetch"), Log: h.part("prefetch")})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return lean.Run(ctx, h.log) })
	g.Go(func() error { return h.reportHealth(ctx, events.As("store")) })
	g.Go(func() error { return h.backups(ctx) })
	g.Go(func() error { return h.archives(ctx) })
	g.Go(func() error { return h.keepSealed(ctx) })
	g.Go(func() error { return h.watchdog(ctx) })
	for _, r := range append(append(h.accessLoops(), h.storageLoops(as, events)...),
		h.audit,
		h.pki,
		events,
		h.policyStatus(),
		h.priorityLevels(),
		h.dispatch,
		images,
		h.crd,
		nodes,
		bootstrap.New(bootstrap.Config{Client: client, Address: h.podFacingAddress(), ServiceIP: h.cfg.apiAddr(), DNSIP: h.cfg.dnsAddr(), Keep: h.published, Log: h.part("bootstrap")}),
		serviceaccount.New(serviceaccount.Config{Client: as("service-account-controller"), CA: h.pki.CA(), Log: h.part("serviceaccount")}),
		h.tokenSecrets,
		h.certificates(),
		namespace.New(namespace.Config{Client: as("namespace-controller"), Kinds: h.registry.StoredKinds(), Log: h.part("namespace")}),
		deployment.New(deployment.Config{Client: as("deployment-controller"), Events: events.As("deployment-controller"), Images: images, Log: h.part("deployment")}),
		replicaset.New(replicaset.Config{Client: as("replicaset-controller"), Events: events.As("replicaset-controller"), Log: h.part("replicaset")}),
		replicationcontroller.New(replicaset.Config{Client: as("replication-controller"), Events: events.As("replication-controller"), Log: h.part("replicationcontroller")}),
		job.New(job.Config{Client: as("job-controller"), Events: events.As("job-controller"), Log: h.part("job")}),
		cronjob.New(cronjob.Config{Client: as("cronjob-controller"), Events: events.As("cronjob-controller"), Log: h.part("cronjob")}),
		ttlafterfinished.New(as("ttl-after-finished-controller"), h.part("ttlafterfinished")),
		daemonset.New(daemonset.Config{Client: as("daemon-set-controller"), Events: events.As("daemonset-controller"), Images: images, Log: h.part("daemonset")}),
		statefulset.New(statefulset.Config{Client: as("statefulset-controller"), Events: events.As("statefulset-controller"), Images: images, Log: h.part("statefulset")}),
		h.autoscalers(events),
		disruption.New(disruption.Config{Client: as("disruption-controller"), Events: events.As("controllermanager"), Scales: scales{h.kinds, h.objects}, Log: h.part("disruption")}),
		quota.New(quota.Config{Client: as("resourcequota-controller"), Ledger: h.ledger, Kinds: h.registry.StoredKinds(), Log: h.part("quota")}),
		h.apiServices(),
		endpoints.New(as("endpointslice-controller"), h.part("endpoints")),
		endpointmirror.New(as("endpointslicemirroring-controller"), h.part("endpointmirror")),
		loadbalancer.New(as("service-controller"), h.part("loadbalancer")),
		serviceaddress.New(serviceaddress.Config{Client: as("service-cidrs-controller"), Events: events.As("kubernetes-service-cidr-controller"), CIDR: h.cfg.ServiceCIDR, Log: h.part("serviceaddress")}),
		volumeprotection.New(as("pvc-protection-controller"), h.part("volumeprotection")),
		gc.New(gc.Config{Client: as("generic-garbage-collector"), Events: events.As("garbage-collector-controller"), Kinds: h.registry.StoredKinds(), Log: h.part("gc")}),
		h.imagePlacement(events),
		podgc.New(podgc.Config{Client: as("pod-garbage-collector"), Log: h.part("podgc")}),
		schedule.New(schedule.Config{Client: h.registry.ClientAs(auth.Scheduler), Events: events.As("default-scheduler"), Images: h.dispatch, Links: h.dispatch, Metrics: h.scheduling, Log: h.part("scheduler")}),
	) {
		// A loop contains the panics of its keys itself; any other panic ends the hub in good order.
		g.Go(func() error {
			return ended(contain.Do(h.log, "hub/loops", fmt.Sprintf("%T", r), func() error { return r.Run(ctx) }))
		})
	}
	return g.Wait()
}

// podFacingAddress returns where pods reach the API: the first address of the hub that is not loopback. Where only names are
// advertised there is none: pods find the hub by name, the Service has no endpoints.
func (h *Hub) podFacingAddress() netip.AddrPort {
	port, err := strconv.ParseUint(h.portNumber(), 10, 16)
	if err != nil {
		return netip.AddrPort{}
	}
	for _, host := range h.hosts() {
		if addr, err := netip.ParseAddr(host); err == nil && !addr.IsLoopback() {
			return netip.AddrPortFrom(addr, uint16(port))
		}
	}
	return netip.AddrPortFrom(netip.Addr{}, uint16(port))
}
