package builtin

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"testing"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"petrel.dev/petrel/hub/resource"
	"petrel.dev/petrel/hub/resource/resourcetest"
	"petrel.dev/petrel/internal/kube"
)

// signingRequest is a certificate request of a key that is nowhere kept, in PEM and base64.
var signingRequest = func() string {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "a"}}, key)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}()

// samples has one valid object of each kind, as a person would write it.
var samples = map[string]string{
	"bindings.":                       `{metadata: {name: a, namespace: ns}, target: {kind: Node, name: w}}`,
	"componentstatuses.":              `{metadata: {name: a}, conditions: [{type: Healthy, status: "True", message: ok}]}`,
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
	"ingressclasses.networking.k8s.io":                               `{metadata: {name: a}, spec: {controller: example.com/ingress}}`,
	"networkpolicies.networking.k8s.io":                              `{metadata: {name: a, namespace: ns}, spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}}`,
	"poddisruptionbudgets.policy":                                    `{metadata: {name: a, namespace: ns}, spec: {minAvailable: 1, selector: {matchLabels: {app: a}}}}`,
	"runtimeclasses.node.k8s.io":                                     `{metadata: {name: a}, handler: runc, overhead: {podFixed: {memory: 16Mi}}}`,
	"csinodes.storage.k8s.io":                                        `{metadata: {name: a}, spec: {drivers: [{name: d, nodeID: pi-1, topologyKeys: [zone]}]}}`,
	"storageclasses.storage.k8s.io":                                  `{metadata: {name: a}, provisioner: example.com/disk, parameters: {type: fast}}`,
	"volumeattachments.storage.k8s.io":                               `{metadata: {name: a}, spec: {attacher: d, nodeName: pi-1, source: {persistentVolumeName: v}}}`,
	"persistentvolumes.":                                             `{metadata: {name: a}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /srv/a}}}`,
	"persistentvolumeclaims.":                                        `{metadata: {name: a, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}`,
	"replicationcontrollers.":                                        `{metadata: {name: a, namespace: ns}, spec: {selector: {app: a}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
	"daemonsets.apps":                                                `{metadata: {name: a, namespace: ns}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
	"statefulsets.apps":                                              `{metadata: {name: a, namespace: ns}, spec: {serviceName: a, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}, volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}}`,
	"jobs.batch":                                                     `{metadata: {name: a, namespace: ns}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}`,
	"cronjobs.batch":                                                 `{metadata: {name: a, namespace: ns}, spec: {schedule: '*/5 * * * *', jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}}`,
	"roles.rbac.authorization.k8s.io":                                `{metadata: {name: a, namespace: ns}, rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]}`,
	"rolebindings.rbac.authorization.k8s.io":                         `{metadata: {name: a, namespace: ns}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}, subjects: [{kind: ServiceAccount, name: s, namespace: ns}]}`,
	"clusterroles.rbac.authorization.k8s.io":                         `{metadata: {name: a}, rules: [{verbs: [get], nonResourceURLs: [/metrics]}]}`,
	"clusterrolebindings.rbac.authorization.k8s.io":                  `{metadata: {name: a}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: r}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: g}]}`,
	"mutatingwebhookconfigurations.admissionregistration.k8s.io":     `{metadata: {name: a}, webhooks: [{name: a.example.com, clientConfig: {service: {namespace: ns, name: s}}, sideEffects: None, admissionReviewVersions: [v1], rules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]}]}`,
	"validatingwebhookconfigurations.admissionregistration.k8s.io":   `{metadata: {name: a}, webhooks: [{name: a.example.com, clientConfig: {url: 'https://example.com/x'}, sideEffects: None, admissionReviewVersions: [v1], rules: [{operations: ['*'], apiGroups: [apps], apiVersions: [v1], resources: ['*']}]}]}`,
	"validatingadmissionpolicies.admissionregistration.k8s.io":       `{metadata: {name: a}, spec: {matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}, validations: [{expression: object.spec.replicas <= 5}]}}`,
	"validatingadmissionpolicybindings.admissionregistration.k8s.io": `{metadata: {name: a}, spec: {policyName: p, validationActions: [Deny]}}`,
	"mutatingadmissionpolicies.admissionregistration.k8s.io":         `{metadata: {name: a}, spec: {reinvocationPolicy: Never, matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]}, mutations: [{patchType: JSONPatch, jsonPatch: {expression: '[JSONPatch{op: "add", path: "/metadata/labels/x", value: "y"}]'}}]}}`,
	"mutatingadmissionpolicybindings.admissionregistration.k8s.io":   `{metadata: {name: a}, spec: {policyName: p}}`,
	"apiservices.apiregistration.k8s.io":                             `{metadata: {name: v1.example.com}, spec: {group: example.com, version: v1, groupPriorityMinimum: 1000, versionPriority: 15, service: {namespace: ns, name: s}, insecureSkipTLSVerify: true}}`,
	"flowschemas.flowcontrol.apiserver.k8s.io":                       `{metadata: {name: a}, spec: {priorityLevelConfiguration: {name: l}, rules: [{subjects: [{kind: User, user: {name: u}}], resourceRules: [{verbs: [get], apiGroups: [''], resources: [pods], namespaces: ['*']}]}]}}`,
	"prioritylevelconfigurations.flowcontrol.apiserver.k8s.io":       `{metadata: {name: a}, spec: {type: Limited, limited: {nominalConcurrencyShares: 10, limitResponse: {type: Reject}}}}`,
	"certificatesigningrequests.certificates.k8s.io":                 `{metadata: {name: a}, spec: {signerName: example.com/s, usages: [digital signature], request: ` + signingRequest + `}}`,
	"horizontalpodautoscalers.autoscaling/v2":                        `{metadata: {name: a, namespace: ns}, spec: {minReplicas: 1, maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}`,
	"horizontalpodautoscalers.autoscaling/v1":                        `{metadata: {name: a, namespace: ns}, spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}, targetCPUUtilizationPercentage: 50}}`,
	"csidrivers.storage.k8s.io":                                      `{metadata: {name: d.example.com}, spec: {attachRequired: false}}`,
	"csistoragecapacities.storage.k8s.io":                            `{metadata: {name: a, namespace: ns}, storageClassName: c, capacity: 1Gi}`,
	"volumeattributesclasses.storage.k8s.io":                         `{metadata: {name: a}, driverName: d.example.com, parameters: {iops: '100'}}`,
	"ipaddresses.networking.k8s.io":                                  `{metadata: {name: 10.43.0.5}, spec: {parentRef: {resource: services, namespace: ns, name: s}}}`,
	"servicecidrs.networking.k8s.io":                                 `{metadata: {name: a}, spec: {cidrs: [10.44.0.0/24]}}`,
	"deviceclasses.resource.k8s.io":                                  `{metadata: {name: a}, spec: {selectors: [{cel: {expression: device.driver == 'd.example.com'}}]}}`,
	"resourceclaims.resource.k8s.io":                                 `{metadata: {name: a, namespace: ns}, spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}`,
	"resourceclaimtemplates.resource.k8s.io":                         `{metadata: {name: a, namespace: ns}, spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}}`,
	"resourceslices.resource.k8s.io":                                 `{metadata: {name: a}, spec: {driver: d.example.com, nodeName: pi-1, pool: {name: p, generation: 1, resourceSliceCount: 1}, devices: [{name: x, attributes: {model: {string: m}}, capacity: {memory: {value: 1Gi}}}]}}`,
	"customresourcedefinitions.apiextensions.k8s.io": `{metadata: {name: widgets.example.dev}, spec: {group: example.dev, scope: Namespaced, names: {plural: widgets, kind: Widget},
		versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}}]}}`,
	"priorityclasses.scheduling.k8s.io": `{metadata: {name: a}, value: 1000, description: d}`,
	"nodes.metrics.k8s.io":              `{metadata: {name: a}, timestamp: "2026-01-02T03:04:05Z", window: 15s, usage: {cpu: 250m, memory: 100Mi}}`,
	"pods.metrics.k8s.io":               `{metadata: {name: a, namespace: ns}, timestamp: "2026-01-02T03:04:05Z", window: 15s, containers: [{name: c, usage: {cpu: 5m, memory: 10Mi}}]}`,
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
	if !ok { // a kind with several versions has a sample of each
		manifest, ok = samples[k.Plural+"."+k.GVK.Group+"/"+k.GVK.Version]
	}
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
