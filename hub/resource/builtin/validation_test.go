package builtin

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/hub/resource/resourcetest"
	"petrel.dev/petrel/internal/kube"
)

// Refused creations, in upstream's words. Each manifest is a whole object.
func TestCreateRefusals(t *testing.T) {
	long := strings.Repeat("a", 64)
	for name, c := range map[string]struct {
		kind     string
		manifest string
		want     []string
	}{
		"pod without containers": {"pods.", `{metadata: {name: a, namespace: ns}, spec: {}}`,
			[]string{`spec.containers: Required value`}},
		"container without image": {"pods.", `{metadata: {name: a, namespace: ns}, spec: {containers: [{name: c}]}}`,
			[]string{`spec.containers[0].image: Required value`}},
		"bad restart policy": {"pods.", `{metadata: {name: a, namespace: ns}, spec: {restartPolicy: Sometimes, containers: [{name: c, image: i}]}}`,
			[]string{`spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"`}},
		"bad container name": {"pods.", `{metadata: {name: a, namespace: ns}, spec: {containers: [{name: C_1, image: i}]}}`,
			[]string{`spec.containers[0].name: Invalid value: "C_1": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`}},
		"port out of range": {"pods.", `{metadata: {name: a, namespace: ns}, spec: {containers: [{name: c, image: i, ports: [{containerPort: 70000}]}]}}`,
			[]string{`spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive`}},
		"limit below request": {"pods.", `{metadata: {name: a, namespace: ns}, spec: {containers: [{name: c, image: i, resources: {requests: {cpu: 2}, limits: {cpu: 1}}}]}}`,
			[]string{`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`}},
		"volume that is not there": {"pods.", `{metadata: {name: a, namespace: ns}, spec: {containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /x}]}]}}`,
			[]string{`spec.containers[0].volumeMounts[0].name: Not found: "v"`}},
		"long namespace name": {"namespaces.", `{metadata: {name: ` + long + `}}`,
			[]string{`metadata.name: Invalid value: "` + long + `": must be no more than 63 characters`,
				`metadata.labels: Invalid value: "` + long + `": must be no more than 63 bytes`}},
		"bad config key": {"configmaps.", `{metadata: {name: a, namespace: ns}, data: {"a/b": v}}`,
			[]string{`data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')`}},
		"tls secret without key": {"secrets.", `{metadata: {name: a, namespace: ns}, type: kubernetes.io/tls, data: {}}`,
			[]string{`data[tls.crt]: Required value`, `data[tls.key]: Required value`}},
		"service without port": {"services.", `{metadata: {name: a, namespace: ns}, spec: {clusterIP: 10.43.0.5, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack}}`,
			[]string{`spec.ports: Required value`}},
		"service name with a dot": {"services.", `{metadata: {name: a.b, namespace: ns}, spec: {clusterIP: 10.43.0.5, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80}]}}`,
			[]string{`metadata.name: Invalid value: "a.b": must not contain dots`}},
		"selector that misses its template": {"deployments.apps", `{metadata: {name: a, namespace: ns}, spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{"spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"}},
		"deployment without selector": {"deployments.apps", `{metadata: {name: a, namespace: ns}, spec: {template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{`spec.selector: Required value`, "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"}},
		"negative replicas": {"replicasets.apps", `{metadata: {name: a, namespace: ns}, spec: {replicas: -1, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{`spec.replicas: Invalid value: -1: must be greater than or equal to 0`}},
		"node with a bad network": {"nodes.", `{metadata: {name: a}, spec: {podCIDR: nowhere, podCIDRs: [nowhere]}}`,
			[]string{`spec.podCIDRs[0]: Invalid value: "nowhere": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)`}},
		"slice of names as addresses": {"endpointslices.discovery.k8s.io", `{metadata: {name: a, namespace: ns}, addressType: IPv4, endpoints: [{addresses: [house]}]}`,
			[]string{`endpoints[0].addresses[0]: Invalid value: "house": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`}},
		"review of nothing for nobody": {"subjectaccessreviews.authorization.k8s.io", `{}`,
			[]string{`spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified`,
				`spec.user: Invalid value: "": at least one of user or group must be specified`}},
		"review of two things with a name": {"selfsubjectaccessreviews.authorization.k8s.io", `{metadata: {name: a}, spec: {resourceAttributes: {verb: get}, nonResourceAttributes: {path: /x}}}`,
			[]string{`spec.nonResourceAttributes: Invalid value: {"Path":"/x","Verb":""}: cannot be specified in combination with resourceAttributes`,
				`metadata: Invalid value: {"name":"a"}: must be empty`}},
		"review of another namespace": {"localsubjectaccessreviews.authorization.k8s.io", `{metadata: {namespace: ns}, spec: {user: u, resourceAttributes: {namespace: other}}}`,
			[]string{`spec.resourceAttributes.namespace: Invalid value: "other": must match metadata.namespace`}},
		"limit that no pod could meet": {"limitranges.", `{metadata: {name: a, namespace: ns}, spec: {limits: [{type: Container, min: {cpu: 2}, max: {cpu: 1}}]}}`,
			[]string{`spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1`,
				`spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1`,
				`spec.limits[0].default[cpu]: Invalid value: "2": min value 2 is greater than default value 1`}},
		"quota below zero": {"resourcequotas.", `{metadata: {name: a, namespace: ns}, spec: {hard: {pods: -1}}}`,
			[]string{`spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0`}},
		"pod template without image": {"podtemplates.", `{metadata: {name: a, namespace: ns}, template: {spec: {containers: [{name: c}]}}}`,
			[]string{`template.spec.containers[0].image: Required value`}},
		"priority class above the system's": {"priorityclasses.scheduling.k8s.io", `{metadata: {name: a}, value: 1000000001}`,
			[]string{`value: Forbidden: maximum allowed value of a user defined priority is 1000000000`}},
		"priority class with a system name": {"priorityclasses.scheduling.k8s.io", `{metadata: {name: system-mine}, value: 1}`,
			[]string{`metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class`}},
		"runtime class without handler": {"runtimeclasses.node.k8s.io", `{metadata: {name: a}}`,
			[]string{`handler: Required value`}},
		"controller revision before the first": {"controllerrevisions.apps", `{metadata: {name: a, namespace: ns}, data: {a: b}, revision: -1}`,
			[]string{`revision: Invalid value: -1: must be greater than or equal to 0`}},
		"ingress without path type": {"ingresses.networking.k8s.io", `{metadata: {name: a, namespace: ns}, spec: {rules: [{http: {paths: [{path: /, backend: {service: {name: s, port: {number: 80}}}}]}}]}}`,
			[]string{`spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified`}},
		"ingress to nowhere": {"ingresses.networking.k8s.io", `{metadata: {name: a, namespace: ns}, spec: {}}`,
			[]string{"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"}},
		"ingress class without controller": {"ingressclasses.networking.k8s.io", `{metadata: {name: a}, spec: {}}`,
			[]string{`spec.controller: Required value`}},
		"exception outside its block": {"networkpolicies.networking.k8s.io", `{metadata: {name: a, namespace: ns}, spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}}`,
			[]string{`spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of ` + "`cidr`"}},
		"budget of two kinds": {"poddisruptionbudgets.policy", `{metadata: {name: a, namespace: ns}, spec: {minAvailable: 1, maxUnavailable: 1, selector: {}}}`,
			[]string{`spec: Invalid value: {"MinAvailable":1,"Selector":{},"MaxUnavailable":1,"UnhealthyPodEvictionPolicy":null}: minAvailable and maxUnavailable cannot be both set`}},
		"storage class without provisioner": {"storageclasses.storage.k8s.io", `{metadata: {name: a}}`,
			[]string{`provisioner: Required value`}},
		"lease of no time": {"leases.coordination.k8s.io", `{metadata: {name: a, namespace: ns}, spec: {leaseDurationSeconds: 0}}`,
			[]string{`spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0`}},
		"job with pods that never end": {"jobs.batch", `{metadata: {name: a, namespace: ns}, spec: {template: {spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{`spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`}},
		"cron job at no time": {"cronjobs.batch", `{metadata: {name: a, namespace: ns}, spec: {schedule: "* * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}}`,
			[]string{`spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]`}},
		"stateful set that may not go on": {"statefulsets.apps", `{metadata: {name: a, namespace: ns}, spec: {serviceName: a, updateStrategy: {rollingUpdate: {maxUnavailable: 0}}, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{`spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0`}},
		"stateful set that loses more than it has": {"statefulsets.apps", `{metadata: {name: a, namespace: ns}, spec: {serviceName: a, updateStrategy: {rollingUpdate: {maxUnavailable: 101%}}, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{`spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
		"daemon set that selects nothing": {"daemonsets.apps", `{metadata: {name: a, namespace: ns}, spec: {selector: {}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{`spec.selector: Invalid value: {}: empty selector is invalid for daemonset`}},
		"stateful set with two orders": {"statefulsets.apps", `{metadata: {name: a, namespace: ns}, spec: {podManagementPolicy: Some, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{`spec.podManagementPolicy: Invalid value: "Some": must be 'OrderedReady' or 'Parallel'`}},
		"controller that misses its template": {"replicationcontrollers.", `{metadata: {name: a, namespace: ns}, spec: {selector: {app: b}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{"spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"}},
		"claim of nothing": {"persistentvolumeclaims.", `{metadata: {name: a, namespace: ns}, spec: {accessModes: [ReadWriteOnce]}}`,
			[]string{`spec.resources[storage]: Required value`}},
		"volume of two kinds": {"persistentvolumes.", `{metadata: {name: a}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /a}, nfs: {server: s, path: /b}}}`,
			[]string{`spec.nfs: Forbidden: may not specify more than 1 volume type`}},
		"role without verbs": {"roles.rbac.authorization.k8s.io", `{metadata: {name: a, namespace: ns}, rules: [{apiGroups: [""], resources: [pods]}]}`,
			[]string{`rules[0].verbs: Required value: verbs must contain at least one value`}},
		"binding to a user": {"clusterrolebindings.rbac.authorization.k8s.io", `{metadata: {name: a}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: User, name: u}}`,
			[]string{`roleRef.kind: Unsupported value: "User": supported values: "ClusterRole"`}},
		"request that is none": {"certificatesigningrequests.certificates.k8s.io", `{metadata: {name: a}, spec: {signerName: example.com/s, usages: [digital signature], request: bm9uZQ==}}`,
			[]string{`spec.request: Invalid value: "bm9uZQ==": PEM block type must be CERTIFICATE REQUEST`}},
		"webhook with side effects": {"validatingwebhookconfigurations.admissionregistration.k8s.io", `{metadata: {name: a}, webhooks: [{name: a.example.com, clientConfig: {url: "https://example.com/x"}, sideEffects: Some, admissionReviewVersions: [v1]}]}`,
			[]string{`webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"`}},
		"policy of a wrong expression": {"validatingadmissionpolicies.admissionregistration.k8s.io", `{metadata: {name: a}, spec: {matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}, validations: [{expression: object.}]}}`,
			[]string{"spec.validations[0].expression: Invalid value: \"object.\": compilation failed: ERROR: <input>:1:8: Syntax error: no viable alternative at input '.'\n | object.\n | .......^"}},
		"service of an API that is not named after it": {"apiservices.apiregistration.k8s.io", `{metadata: {name: a}, spec: {group: example.com, version: v1, groupPriorityMinimum: 1, versionPriority: 1}}`,
			[]string{`metadata.name: Invalid value: "a": must be ` + "`spec.version+\".\"+spec.group`: \"v1.example.com\""}},
		"flow schema without a level": {"flowschemas.flowcontrol.apiserver.k8s.io", `{metadata: {name: a}, spec: {priorityLevelConfiguration: {name: ""}}}`,
			[]string{`spec.priorityLevelConfiguration.name: Required value: must reference a priority level`}},
		"autoscaler from nothing": {"horizontalpodautoscalers.autoscaling", `{metadata: {name: a, namespace: ns}, spec: {minReplicas: 0, maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}}}`,
			[]string{`spec.minReplicas: Invalid value: 0: must be greater than or equal to 1`,
				`spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas`}},
		"address that is none": {"ipaddresses.networking.k8s.io", `{metadata: {name: a}, spec: {parentRef: {resource: services, namespace: ns, name: s}}}`,
			[]string{`metadata.name: Invalid value: "a": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`}},
		"network with host bits": {"servicecidrs.networking.k8s.io", `{metadata: {name: a}, spec: {cidrs: [10.44.0.1/24]}}`,
			[]string{`spec.cidrs[0]: Invalid value: "10.44.0.1/24": must not have bits set beyond the prefix length`}},
		"device class of a wrong expression": {"deviceclasses.resource.k8s.io", `{metadata: {name: a}, spec: {selectors: [{cel: {expression: "true +"}}]}}`,
			[]string{"spec.selectors[0].cel.expression: Invalid value: \"true +\": compilation failed: ERROR: <input>:1:7: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | true +\n | ......^"}},
		"claim without a class": {"resourceclaims.resource.k8s.io", `{metadata: {name: a, namespace: ns}, spec: {devices: {requests: [{name: r, exactly: {}}]}}}`,
			[]string{`spec.devices.requests[0].exactly.deviceClassName: Required value`}},
		"event elsewhere": {"events.", `{metadata: {name: a, namespace: ns}, involvedObject: {kind: Pod, namespace: other, name: p}}`,
			[]string{`involvedObject.namespace: Invalid value: "other": does not match event.namespace`}},
		"event of events.k8s.io without its time": {"events.events.k8s.io", `{metadata: {name: a, namespace: ns}, regarding: {kind: Pod, namespace: ns, name: p}, reason: r, type: Normal, action: x, reportingController: petrel.dev/agent, reportingInstance: i}`,
			[]string{`eventTime: Required value`}},
	} {
		t.Run(name, func(t *testing.T) {
			plural, group, _ := strings.Cut(c.kind, ".")
			k := byResource(t, plural, group)
			wantErrors(t, resourcetest.Create(k, parse(t, k, c.manifest)), c.want)
		})
	}
}

// Refused changes of the kinds' samples, in upstream's words.
func TestUpdateRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		kind        string
		subresource string
		before      string // the stored object instead of the sample
		change      func(t *testing.T, obj kube.Object) kube.Object
		want        []string
	}{
		"image is all that changes in a pod": {kind: "pods.", change: edit(`{spec: {containers: [{name: c, image: other}]}}`)},
		"immutable config map": {kind: "configmaps.", before: `{metadata: {name: a, namespace: ns}, immutable: true, data: {k: v}}`,
			change: edit(`{data: {k: w}}`), want: []string{"data: Forbidden: field is immutable when `immutable` is set"}},
		"immutable secret": {kind: "secrets.", before: `{metadata: {name: a, namespace: ns}, immutable: true, data: {k: dg==}}`,
			change: edit(`{data: {k: dw==}}`), want: []string{"data: Forbidden: field is immutable when `immutable` is set"}},
		"secret type": {kind: "secrets.", change: edit(`{type: example.com/other}`),
			want: []string{`type: Invalid value: "example.com/other": field is immutable`}},
		"cluster IP": {kind: "services.", change: edit(`{spec: {clusterIP: 10.43.0.6}}`),
			want: []string{`spec.clusterIPs[0]: Invalid value: ["10.43.0.6"]: may not change once set`}},
		"deployment selector": {kind: "deployments.apps", change: edit(`{spec: {selector: {matchLabels: {app: b}}, template: {metadata: {labels: {app: b}}}}}`),
			want: []string{`spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable`}},
		"number of a priority class": {kind: "priorityclasses.scheduling.k8s.io", change: edit(`{value: 1001}`),
			want: []string{`value: Forbidden: may not be changed in an update.`}},
		"handler of a runtime class": {kind: "runtimeclasses.node.k8s.io", change: edit(`{handler: kata}`),
			want: []string{`handler: Invalid value: "kata": field is immutable`}},
		"data of a controller revision": {kind: "controllerrevisions.apps", change: func(_ *testing.T, obj kube.Object) kube.Object {
			obj.(*appsv1.ControllerRevision).Data.Raw = []byte(`{"spec":{"replicas":3}}`)
			return obj
		},
			want: []string{`data: Invalid value: {"spec":{"replicas":3}}: field is immutable`}},
		"controller of an ingress class": {kind: "ingressclasses.networking.k8s.io", change: edit(`{spec: {controller: example.com/other}}`),
			want: []string{`spec.controller: Invalid value: "example.com/other": field is immutable`}},
		"status of a budget": {kind: "poddisruptionbudgets.policy", subresource: "status", change: edit(`{status: {currentHealthy: -1}}`),
			want: []string{`status.currentHealthy: Invalid value: -1: must be greater than or equal to 0`}},
		"provisioner of a storage class": {kind: "storageclasses.storage.k8s.io", change: edit(`{provisioner: example.com/other}`),
			want: []string{`provisioner: Invalid value: "example.com/other": field is immutable`}},
		"role of a binding": {kind: "rolebindings.rbac.authorization.k8s.io", change: edit(`{roleRef: {name: other}}`),
			want: []string{`roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"other"}: cannot change roleRef`}},
		"completions of a job": {kind: "jobs.batch", change: edit(`{spec: {completions: 2}}`),
			want: []string{`spec.completions: Invalid value: 2: field is immutable`}},
		"a job that is over before it began": {kind: "jobs.batch", subresource: "status", change: edit(`{status: {conditions: [{type: Failed, status: "True"}]}}`),
			want: []string{`status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition`,
				`status.startTime: Required value: startTime is required for finished job`}},
		"parameters of a volume attributes class": {kind: "volumeattributesclasses.storage.k8s.io", change: edit(`{parameters: {iops: "200"}}`),
			want: []string{`parameters: Forbidden: updates to parameters are forbidden.`}},
		"network of a service CIDR": {kind: "servicecidrs.networking.k8s.io", change: edit(`{spec: {cidrs: [10.45.0.0/24]}}`),
			want: []string{`spec.cidrs[0]: Invalid value: "10.45.0.0/24": field is immutable`}},
		"address type": {kind: "endpointslices.discovery.k8s.io", change: edit(`{addressType: IPv6, endpoints: []}`),
			want: []string{`addressType: Invalid value: "IPv6": field is immutable`}},
		"pod network of a node": {kind: "nodes.", change: func(_ *testing.T, obj kube.Object) kube.Object {
			spec := &obj.(*corev1.Node).Spec
			spec.PodCIDR, spec.PodCIDRs = "10.42.2.0/24", []string{"10.42.2.0/24"}
			return obj
		},
			want: []string{`spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`}},
	} {
		t.Run(name, func(t *testing.T) {
			plural, group, _ := strings.Cut(c.kind, ".")
			k := byResource(t, plural, group)
			old := made(t, k)
			if c.before != "" {
				old = parse(t, k, c.before)
				wantErrors(t, resourcetest.Create(k, old), nil)
			}
			rules := &k.Rules
			if c.subresource != "" {
				rules = k.Subresources[c.subresource].Rules
			}
			wantErrors(t, resourcetest.Update(rules, c.change(t, old.DeepCopyObject().(kube.Object)), old), c.want)
		})
	}
}

// A pod's spec is fixed but for a few fields; the refusal shows the difference.
func TestPodSpecIsFixed(t *testing.T) {
	k := byResource(t, "pods", "")
	old := made(t, k)
	errs := resourcetest.Update(&k.Rules, edit(`{spec: {hostNetwork: true}}`)(t, old.DeepCopyObject().(kube.Object)), old)
	const want = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
	if len(errs) != 1 || !strings.HasPrefix(errs[0], want) {
		t.Errorf("%q", errs)
	}
}

func wantErrors(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("refused with\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
