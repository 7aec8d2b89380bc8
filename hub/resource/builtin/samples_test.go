package builtin

import (
	"testing"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/resourcetest"
	"petrel.dev/petrel/internal/kube"
)

// samples has one valid object of each kind, as a person would write it.
var samples = map[string]string{
	"configmaps.":                     `{metadata: {name: a, namespace: ns}, data: {k: v}}`,
	"endpoints.":                      `{metadata: {name: a, namespace: ns}, subsets: [{addresses: [{ip: 10.1.2.3}], ports: [{port: 80}]}]}`,
	"events.":                         `{metadata: {name: a, namespace: ns}, involvedObject: {kind: Pod, namespace: ns, name: p}, reason: Started, type: Normal, message: m}`,
	"limitranges.":                    `{metadata: {name: a, namespace: ns}, spec: {limits: [{type: Container, default: {cpu: 500m}, max: {cpu: 2}}]}}`,
	"namespaces.":                     `{metadata: {name: a}}`,
	"nodes.":                          `{metadata: {name: a}, spec: {podCIDR: 10.42.1.0/24, podCIDRs: [10.42.1.0/24]}, status: {capacity: {cpu: "4"}}}`,
	"pods.":                           `{metadata: {name: a, namespace: ns}, spec: {containers: [{name: c, image: i}]}}`,
	"podtemplates.":                   `{metadata: {name: a, namespace: ns}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}`,
	"resourcequotas.":                 `{metadata: {name: a, namespace: ns}, spec: {hard: {pods: 10, requests.cpu: 4}}}`,
	"secrets.":                        `{metadata: {name: a, namespace: ns}, stringData: {k: v}}`,
	"serviceaccounts.":                `{metadata: {name: a, namespace: ns}}`,
	"services.":                       `{metadata: {name: a, namespace: ns}, spec: {clusterIP: 10.43.0.5, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80}], selector: {app: a}}}`,
	"controllerrevisions.apps":        `{metadata: {name: a, namespace: ns}, data: {spec: {replicas: 2}}, revision: 7}`,
	"deployments.apps":                `{metadata: {name: a, namespace: ns}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
	"replicasets.apps":                `{metadata: {name: a, namespace: ns}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
	"leases.coordination.k8s.io":      `{metadata: {name: a, namespace: ns}, spec: {holderIdentity: me, leaseDurationSeconds: 15}}`,
	"endpointslices.discovery.k8s.io": `{metadata: {name: a, namespace: ns}, addressType: IPv4, endpoints: [{addresses: [10.1.2.3]}], ports: [{name: http, port: 80}]}`,
	"events.events.k8s.io": `{metadata: {name: a, namespace: ns}, eventTime: "2026-01-02T03:04:05.000000Z", regarding: {kind: Pod, namespace: ns, name: p}, reason: Started, type: Normal,
		action: Starting, reportingController: petrel.dev/agent, reportingInstance: pi-1}`,
	"selfsubjectreviews.authentication.k8s.io":       `{}`,
	"tokenreviews.authentication.k8s.io":             `{spec: {token: t, audiences: [a]}}`,
	"subjectaccessreviews.authorization.k8s.io":      `{spec: {user: u, groups: [g], extra: {k: [v]}, resourceAttributes: {verb: get, resource: pods, labelSelector: {rawSelector: a=b}}}}`,
	"localsubjectaccessreviews.authorization.k8s.io": `{metadata: {namespace: ns}, spec: {user: u, resourceAttributes: {namespace: ns, verb: get, resource: pods}}}`,
	"selfsubjectaccessreviews.authorization.k8s.io":  `{spec: {nonResourceAttributes: {verb: get, path: /metrics}}}`,
	"selfsubjectrulesreviews.authorization.k8s.io":   `{spec: {namespace: ns}}`,
	"ingresses.networking.k8s.io": `{metadata: {name: a, namespace: ns}, spec: {ingressClassName: c, rules: [{host: a.example.com, http: {paths: [{path: /, pathType: Prefix,
		backend: {service: {name: s, port: {number: 80}}}}]}}]}}`,
	"ingressclasses.networking.k8s.io":  `{metadata: {name: a}, spec: {controller: example.com/ingress}}`,
	"networkpolicies.networking.k8s.io": `{metadata: {name: a, namespace: ns}, spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}}`,
	"poddisruptionbudgets.policy":       `{metadata: {name: a, namespace: ns}, spec: {minAvailable: 1, selector: {matchLabels: {app: a}}}}`,
	"runtimeclasses.node.k8s.io":        `{metadata: {name: a}, handler: runc, overhead: {podFixed: {memory: 16Mi}}}`,
	"csinodes.storage.k8s.io":           `{metadata: {name: a}, spec: {drivers: [{name: d, nodeID: pi-1, topologyKeys: [zone]}]}}`,
	"storageclasses.storage.k8s.io":     `{metadata: {name: a}, provisioner: example.com/disk, parameters: {type: fast}}`,
	"volumeattachments.storage.k8s.io":  `{metadata: {name: a}, spec: {attacher: d, nodeName: pi-1, source: {persistentVolumeName: v}}}`,
	"priorityclasses.scheduling.k8s.io": `{metadata: {name: a}, value: 1000, description: d}`,
}

// parse reads a manifest of the kind in YAML, strictly.
func parse(t *testing.T, k *resource.Kind, manifest string) kube.Object {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	obj := k.New()
	strict, err := kjson.UnmarshalStrict(data, obj)
	if err != nil || len(strict) > 0 {
		t.Fatalf("%s: %v %v", manifest, err, strict)
	}
	return obj
}

func byResource(t testing.TB, plural, group string) *resource.Kind {
	t.Helper()
	for _, k := range New().All() {
		if k.Plural == plural && k.GVK.Group == group {
			return k
		}
	}
	t.Fatalf("no kind %s.%s", plural, group)
	return nil
}

func sample(t *testing.T, k *resource.Kind) kube.Object {
	t.Helper()
	manifest, ok := samples[k.Plural+"."+k.GVK.Group]
	if !ok {
		t.Fatalf("samples has no %s.%s: add one", k.Plural, k.GVK.Group)
	}
	return parse(t, k, manifest)
}

// made is the sample after its creation.
func made(t *testing.T, k *resource.Kind) kube.Object {
	t.Helper()
	obj := sample(t, k)
	if errs := resourcetest.Create(k, obj); len(errs) > 0 {
		t.Fatalf("the sample is refused: %q", errs)
	}
	return obj
}
