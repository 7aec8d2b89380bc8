package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/resourcetest"
	"petrel.dev/petrel/internal/kube"
)

// decode reads an object that the rules see: of the version that is stored.
func decode(gvk kube.GVK, data []byte) (kube.Object, error) {
	return resource.Declare(gvk, "", "").Codec.Decode(data)
}

// edit is a strategic merge patch in YAML.
func edit(patch string) func(*testing.T, kube.Object) kube.Object {
	return func(t *testing.T, obj kube.Object) kube.Object {
		t.Helper()
		before, err := json.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		change, err := yaml.YAMLToJSON([]byte(patch))
		if err != nil {
			t.Fatal(err)
		}
		after, err := strategicpatch.StrategicMergePatch(before, change, obj)
		if err != nil {
			t.Fatal(err)
		}
		out, err := decode(obj.GetObjectKind().GroupVersionKind(), after)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// changed applies an update that must be accepted.
func changed(t *testing.T, rules *resource.Rules, old kube.Object, patch string) kube.Object {
	t.Helper()
	obj := edit(patch)(t, old)
	if errs := resourcetest.Update(rules, obj, old); len(errs) > 0 {
		t.Fatalf("%s: %q", patch, errs)
	}
	return obj
}

func TestPodCreate(t *testing.T) {
	k := byResource(t, "pods", "")
	pod := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {schedulingGates: [{name: g}], containers: [{name: c, image: "i:1", resources: {limits: {cpu: 1, memory: 1Gi}}}]},
		status: {phase: Running, podIP: 10.1.1.1}}`).(*corev1.Pod)
	if errs := resourcetest.Create(k, pod); len(errs) > 0 {
		t.Fatal(errs)
	}
	if pod.Status.Phase != corev1.PodPending || pod.Status.PodIP != "" || pod.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("status = %+v", pod.Status)
	}
	if c := pod.Status.Conditions; len(c) != 1 || c[0].Type != corev1.PodScheduled || c[0].Reason != "SchedulingGated" {
		t.Errorf("conditions = %+v", c)
	}
	s := pod.Spec
	if pod.Generation != 1 || s.RestartPolicy != "Always" || *s.TerminationGracePeriodSeconds != 30 || s.DNSPolicy != "ClusterFirst" ||
		s.SchedulerName != "default-scheduler" || s.Containers[0].ImagePullPolicy != "IfNotPresent" || s.Containers[0].Resources.Requests.Cpu().String() != "1" {
		t.Errorf("defaults: %+v", s)
	}
}

// Agents of storage and networks need them, so a cluster that refuses them is none.
func TestPodMayBePrivileged(t *testing.T) {
	k := byResource(t, "pods", "")
	wantErrors(t, resourcetest.Create(k, parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {hostNetwork: true, hostPID: true,
		containers: [{name: c, image: i, securityContext: {privileged: true}}]}}`)), nil)
}

func TestPodMatchLabelKeys(t *testing.T) {
	k := byResource(t, "pods", "")
	pod := parse(t, k, `{metadata: {name: a, namespace: ns, labels: {app: web, rev: "7"}}, spec: {containers: [{name: c, image: i}],
		topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}, matchLabelKeys: [rev]}],
		affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}, mismatchLabelKeys: [rev]}]}}}}`).(*corev1.Pod)
	if errs := resourcetest.Create(k, pod); len(errs) > 0 {
		t.Fatal(errs)
	}
	spread := metav1.FormatLabelSelector(pod.Spec.TopologySpreadConstraints[0].LabelSelector)
	anti := metav1.FormatLabelSelector(pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector)
	if spread != "app=web,rev in (7)" || anti != "app=web,rev notin (7)" {
		t.Errorf("spread %q, anti-affinity %q", spread, anti)
	}
}

func TestPodStatusUpdate(t *testing.T) {
	k := byResource(t, "pods", "")
	status := k.Subresources["status"].Rules
	old := made(t, k).(*corev1.Pod)
	old.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "False", ObservedGeneration: 1}}
	pod := changed(t, status, old, `{metadata: {labels: {x: "y"}, ownerReferences: [{apiVersion: v1, kind: Pod, name: o, uid: u}]},
		spec: {nodeName: n1}, status: {phase: Running, qosClass: "", podIP: 10.1.1.1, conditions: [{type: Ready, status: "True", observedGeneration: 0}]}}`).(*corev1.Pod)
	if pod.Spec.NodeName != "" || len(pod.OwnerReferences) != 0 {
		t.Errorf("a status update changed spec or owners: %+v", pod)
	}
	if pod.Status.Phase != corev1.PodRunning || pod.Status.QOSClass != corev1.PodQOSBestEffort || pod.Status.Conditions[0].ObservedGeneration != 1 {
		t.Errorf("status = %+v", pod.Status)
	}
	if fmt.Sprint(pod.Status.PodIPs) != "[{10.1.1.1}]" {
		t.Errorf("podIPs do not follow podIP: %v", pod.Status.PodIPs)
	}
	if main := changed(t, &k.Rules, pod, `{spec: {containers: [{name: c, image: j}]}, status: {phase: Failed}}`).(*corev1.Pod); main.Status.Phase != corev1.PodRunning || main.Generation != 2 {
		t.Errorf("phase %s, generation %d after an update of the spec", main.Status.Phase, main.Generation)
	}
}

func TestPodGrace(t *testing.T) {
	k := byResource(t, "pods", "")
	five, minus := int64(5), int64(-1)
	bound := func(p *corev1.Pod) { p.Spec.NodeName = "n" }
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		asked  *int64
		want   int64
	}{
		"unscheduled": {func(*corev1.Pod) {}, nil, 0},
		"bound":       {bound, nil, 30},
		"asked":       {bound, &five, 5},
		"negative":    {bound, &minus, 1},
		"finished":    {func(p *corev1.Pod) { bound(p); p.Status.Phase = corev1.PodSucceeded }, nil, 0},
		"failed":      {func(p *corev1.Pod) { bound(p); p.Status.Phase = corev1.PodFailed }, &five, 0},
	} {
		pod := made(t, k).(*corev1.Pod)
		c.change(pod)
		opts := &metav1.DeleteOptions{GracePeriodSeconds: c.asked}
		if got := k.Grace(pod, opts); got != c.want || *opts.GracePeriodSeconds != c.want {
			t.Errorf("%s: %d s, options %d s; want %d", name, got, *opts.GracePeriodSeconds, c.want)
		}
	}
}

func TestNamespace(t *testing.T) {
	k := byResource(t, "namespaces", "")
	ns := made(t, k).(*corev1.Namespace)
	if ns.Labels["kubernetes.io/metadata.name"] != "a" || ns.Status.Phase != "Active" || fmt.Sprint(k.Finalizers(ns)) != "[kubernetes]" {
		t.Errorf("%+v", ns)
	}
	kept := changed(t, &k.Rules, ns, `{metadata: {labels: null}, spec: {finalizers: null}, status: {phase: Terminating}}`).(*corev1.Namespace)
	if kept.Labels["kubernetes.io/metadata.name"] != "a" || len(kept.Spec.Finalizers) != 1 || kept.Status.Phase != "Active" {
		t.Errorf("an update got through to what it may not touch: %+v", kept)
	}
	freed := changed(t, k.Subresources["finalize"].Rules, ns, `{spec: {finalizers: null}}`).(*corev1.Namespace)
	if len(freed.Spec.Finalizers) != 0 {
		t.Errorf("finalize kept %v", freed.Spec.Finalizers)
	}
}

func TestSecretStringData(t *testing.T) {
	k := byResource(t, "secrets", "")
	secret := made(t, k).(*corev1.Secret)
	if string(secret.Data["k"]) != "v" || secret.StringData != nil || secret.Type != corev1.SecretTypeOpaque {
		t.Errorf("%+v", secret)
	}
	after := changed(t, &k.Rules, secret, `{type: "", stringData: {l: w}}`).(*corev1.Secret)
	if string(after.Data["k"]) != "v" || string(after.Data["l"]) != "w" || after.StringData != nil || len(secret.Data) != 1 {
		t.Errorf("%+v from %+v", after, secret)
	}
	tls := parse(t, k, `{metadata: {name: a, namespace: ns}, type: kubernetes.io/tls, stringData: {tls.crt: x, tls.key: key}}`)
	resourcetest.Create(k, tls)
	if w := k.Rules.WarnCreate(context.Background(), tls); len(w) != 1 || !strings.HasPrefix(w[0], "tls: ") {
		t.Errorf("warnings = %q", w)
	}
}

func TestNodeUpdates(t *testing.T) {
	k := byResource(t, "nodes", "")
	node := made(t, k).(*corev1.Node)
	main := changed(t, &k.Rules, node, `{spec: {unschedulable: true}, status: {capacity: {cpu: "8"}}}`).(*corev1.Node)
	if !main.Spec.Unschedulable || main.Status.Capacity.Cpu().String() != "4" {
		t.Errorf("main update: %+v", main)
	}
	status := changed(t, k.Subresources["status"].Rules, node, `{spec: {unschedulable: true}, status: {capacity: {cpu: "8"}}}`).(*corev1.Node)
	if status.Spec.Unschedulable || status.Status.Capacity.Cpu().String() != "8" {
		t.Errorf("status update: %+v", status)
	}
	if got := k.Fields(main)["spec.unschedulable"]; got != "true" {
		t.Errorf("spec.unschedulable = %q", got)
	}
}

func TestServiceUpdates(t *testing.T) {
	k := byResource(t, "services", "")
	svc := made(t, k).(*corev1.Service)
	svc.Spec.Type, svc.Spec.Ports[0].NodePort, svc.Spec.ExternalTrafficPolicy = corev1.ServiceTypeNodePort, 30080, "Cluster"
	for name, c := range map[string]struct{ patch, want string }{
		"left out":                        {`{spec: {clusterIP: "", clusterIPs: null, ports: [{port: 80, nodePort: 0}]}}`, "NodePort 10.43.0.5 [10.43.0.5] 30080"},
		"ClusterIP drops the node port":   {`{spec: {type: ClusterIP}}`, "ClusterIP 10.43.0.5 [10.43.0.5] 0"},
		"ExternalName drops all":          {`{spec: {type: ExternalName, externalName: example.com}}`, "ExternalName  [] 0"},
		"another node port stays as said": {`{spec: {ports: [{port: 80, nodePort: 30081}]}}`, "NodePort 10.43.0.5 [10.43.0.5] 30081"},
	} {
		s := changed(t, &k.Rules, svc, c.patch).(*corev1.Service).Spec
		if got := fmt.Sprintf("%s %s %v %d", s.Type, s.ClusterIP, s.ClusterIPs, s.Ports[0].NodePort); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := k.Indexes["nodePort"](svc); !slices.Equal(got, []string{"30080"}) {
		t.Errorf("node ports = %v", got)
	}
	status := changed(t, k.Subresources["status"].Rules, svc, `{spec: {type: ClusterIP}, status: {conditions: [{type: Ready, status: "True", reason: R, lastTransitionTime: "2026-01-02T03:04:05Z"}]}}`)
	if s := status.(*corev1.Service); s.Spec.Type != corev1.ServiceTypeNodePort || len(s.Status.Conditions) != 1 {
		t.Errorf("status update: %+v", s)
	}
}

func TestGenerations(t *testing.T) {
	for _, c := range []struct {
		kind, subresource, patch string
		want                     int64
	}{
		{"deployments.apps", "", `{spec: {replicas: 3}}`, 2},
		{"deployments.apps", "", `{metadata: {annotations: {a: b}}}`, 2},
		{"deployments.apps", "", `{metadata: {labels: {a: b}}}`, 1},
		{"deployments.apps", "", `{status: {replicas: 3}}`, 1},
		{"deployments.apps", "status", `{spec: {replicas: 3}, status: {observedGeneration: 1}}`, 1},
		{"replicasets.apps", "", `{spec: {replicas: 3}}`, 2},
		{"replicasets.apps", "", `{metadata: {annotations: {a: b}}}`, 1},
		{"endpointslices.discovery.k8s.io", "", `{endpoints: []}`, 2},
		{"endpointslices.discovery.k8s.io", "", `{metadata: {annotations: {a: b}}}`, 1},
		{"pods.", "", `{metadata: {labels: {a: b}}}`, 1},
		{"statefulsets.apps", "", `{spec: {replicas: 3}}`, 2},
		{"statefulsets.apps", "status", `{spec: {replicas: 3}, status: {observedGeneration: 1}}`, 1},
		{"daemonsets.apps", "", `{spec: {template: {spec: {hostNetwork: true}}}}`, 2},
		{"replicationcontrollers.", "", `{spec: {replicas: 3}}`, 2},
		{"jobs.batch", "", `{spec: {parallelism: 2}}`, 2},
		{"cronjobs.batch", "", `{spec: {suspend: true}}`, 2},
		{"validatingwebhookconfigurations.admissionregistration.k8s.io", "", `{metadata: {labels: {a: b}}}`, 1},
		{"validatingadmissionpolicybindings.admissionregistration.k8s.io", "", `{spec: {validationActions: [Audit]}}`, 2},
		{"prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", "", `{spec: {limited: {nominalConcurrencyShares: 11}}}`, 2},
		{"deviceclasses.resource.k8s.io", "", `{spec: {selectors: []}}`, 2},
		{"roles.rbac.authorization.k8s.io", "", `{rules: []}`, 0},
		{"horizontalpodautoscalers.autoscaling", "", `{spec: {maxReplicas: 4}}`, 0},
	} {
		plural, group, _ := strings.Cut(c.kind, ".")
		k := byResource(t, plural, group)
		rules := &k.Rules
		if c.subresource != "" {
			rules = k.Subresources[c.subresource].Rules
		}
		if got := changed(t, rules, made(t, k), c.patch).GetGeneration(); got != c.want {
			t.Errorf("%s %s %s: generation %d, want %d", c.kind, c.subresource, c.patch, got, c.want)
		}
	}
}

func TestScale(t *testing.T) {
	for _, name := range []string{"deployments.apps", "replicasets.apps", "statefulsets.apps", "replicationcontrollers."} {
		plural, group, _ := strings.Cut(name, ".")
		k := byResource(t, plural, group)
		parent := made(t, k)
		parent.SetResourceVersion("7")
		s := k.Subresources["scale"]
		body, err := s.Get(parent)
		if err != nil {
			t.Fatal(err)
		}
		scale := body.(*autoscalingv1.Scale)
		if scale.Spec.Replicas != 1 || scale.Status.Selector != "app=a" || scale.Name != "a" || scale.ResourceVersion != "7" || scale.Kind != "Scale" {
			t.Errorf("%+v", scale)
		}
		scale.Spec.Replicas = 5
		if err := s.Put(parent, scale); err != nil {
			t.Fatal(err)
		}
		after, _ := s.Get(parent)
		if after.(*autoscalingv1.Scale).Spec.Replicas != 5 {
			t.Error("the replicas did not change")
		}
		scale.Spec.Replicas = -1
		if err := s.Put(parent, scale); err == nil || err.Error() != `Scale.autoscaling "a" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0` {
			t.Errorf("negative replicas: %v", err)
		}
		scale.Spec.Replicas, scale.UID = 1, "another"
		if err := s.Put(parent, scale); err == nil || !strings.Contains(err.Error(), "Precondition failed: UID in precondition: another") {
			t.Errorf("another's UID: %v", err)
		}
	}
}

func TestDeploymentDefaults(t *testing.T) {
	d := made(t, byResource(t, "deployments", "apps")).(*appsv1.Deployment)
	if *d.Spec.Replicas != 1 || d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || d.Spec.Strategy.RollingUpdate.MaxSurge.String() != "25%" ||
		*d.Spec.RevisionHistoryLimit != 10 || *d.Spec.ProgressDeadlineSeconds != 600 || d.Generation != 1 {
		t.Errorf("%+v", d.Spec)
	}
}

// The number of pods that an update may take away is kept, and is not filled in for a set that does not name it, as in Kubernetes 1.36.
func TestStatefulSetMaxUnavailable(t *testing.T) {
	k := byResource(t, "statefulsets", "apps")
	for rolling, want := range map[string]*intstr.IntOrString{`{maxUnavailable: 30%}`: ptr.To(intstr.FromString("30%")), `{partition: 1}`: nil} {
		set := parse(t, k, `{metadata: {name: a, namespace: ns}, spec: {serviceName: a, updateStrategy: {rollingUpdate: `+rolling+`}, selector: {matchLabels: {app: a}},
  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`).(*appsv1.StatefulSet)
		wantErrors(t, resourcetest.Create(k, set), nil)
		if got := set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable; !reflect.DeepEqual(got, want) {
			t.Errorf("%s becomes %v, want %v", rolling, got, want)
		}
	}
}

func TestEventViews(t *testing.T) {
	view, stored := byResource(t, "events", "events.k8s.io"), byResource(t, "events", "")
	obj, err := view.ToStored(t.Context(), sample(t, view))
	if err != nil {
		t.Fatal(err)
	}
	e := obj.(*corev1.Event)
	if e.Kind != "Event" || e.APIVersion != "v1" || e.InvolvedObject.Name != "p" || e.ReportingController != "petrel.dev/agent" {
		t.Errorf("stored as %+v", e)
	}
	shown, err := view.FromStored(t.Context(), obj)
	if err != nil || len(shown) != 1 {
		t.Fatal(shown, err)
	}
	back := shown[0]
	if back.(*eventsv1.Event).Regarding.Name != "p" || back.(*eventsv1.Event).APIVersion != "events.k8s.io/v1" {
		t.Errorf("seen as %+v", back)
	}
	selector, err := view.FieldSelector(fields.OneTermEqualSelector("regarding.name", "p"))
	if err != nil || !selector.Matches(stored.Fields(e)) || !selector.Matches(view.Fields(back)) {
		t.Errorf("%v does not select the event: %v", selector, err)
	}
}

func TestFieldSelectorAlias(t *testing.T) {
	selector, err := byResource(t, "pods", "").FieldSelector(fields.OneTermEqualSelector("spec.host", "n1"))
	if err != nil || selector.String() != "spec.nodeName=n1" {
		t.Errorf("%v, %v", selector, err)
	}
}

func TestNodeIndex(t *testing.T) {
	pod := made(t, byResource(t, "pods", "")).(*corev1.Pod)
	node := byResource(t, "pods", "").Indexes["node"]
	if got := node(pod); got != nil {
		t.Errorf("an unbound pod is on %v", got)
	}
	pod.Spec.NodeName = "n1"
	if got := node(pod); !slices.Equal(got, []string{"n1"}) {
		t.Errorf("node = %v", got)
	}
}

// The columns are kubectl's; those with a priority show with -o wide.
func TestColumns(t *testing.T) {
	for kind, want := range map[string]string{
		"pods.":                                "Name Ready Status Restarts Age IP* Node* Nominated Node* Readiness Gates*",
		"services.":                            "Name Type Cluster-IP External-IP Port(s) Age Selector*",
		"nodes.":                               "Name Status Roles Age Version Internal-IP* External-IP* OS-Image* Kernel-Version* Container-Runtime*",
		"deployments.apps":                     "Name Ready Up-to-date Available Age Containers* Images* Selector*",
		"configmaps.":                          "Name Data Age",
		"jobs.batch":                           "Name Status Completions Duration Age Containers* Images* Selector*",
		"roles.rbac.authorization.k8s.io":      "Name Created At",
		"apiservices.apiregistration.k8s.io":   "Name Service Available Age",
		"persistentvolumeclaims.":              "Name Status Volume Capacity Access Modes StorageClass VolumeAttributesClass Age VolumeMode*",
		"horizontalpodautoscalers.autoscaling": "Name Reference Targets MinPods MaxPods Replicas Age",
		"csistoragecapacities.storage.k8s.io":  "Name Created At",
	} {
		plural, group, _ := strings.Cut(kind, ".")
		k := byResource(t, plural, group)
		table, err := k.Columns(context.Background(), []kube.Object{made(t, k)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range table.ColumnDefinitions {
			name := c.Name
			if c.Priority > 0 {
				name += "*"
			}
			got = append(got, name)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s", kind, s)
		}
	}
	k := byResource(t, "pods", "")
	table, err := k.Columns(context.Background(), nil, &metav1.TableOptions{NoHeaders: true})
	if err != nil || len(table.ColumnDefinitions) != 0 {
		t.Errorf("columns without headers: %v, %v", table, err)
	}
}
