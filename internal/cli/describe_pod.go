package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/intstr"

	"petrel.dev/petrel/internal/kube"
)

// describePod prints what somebody wants to know of a pod, first things first: where it is and how it fares, then each
// container with its state, then what it was made from.
func describePod(w io.Writer, p *corev1.Pod) {
	node := p.Spec.NodeName
	switch {
	case node == "":
		node = "<none>"
	case p.Status.HostIP != "":
		node += "/" + p.Status.HostIP
	}
	fmt.Fprintf(w, "Status:\t%s\n", podStatus(p))
	line(w, "Reason", p.Status.Reason)
	line(w, "Message", p.Status.Message)
	fmt.Fprintf(w, "Node:\t%s\n", node)
	ips := make([]string, len(p.Status.PodIPs))
	for i, ip := range p.Status.PodIPs {
		ips[i] = ip.IP
	}
	fmt.Fprintf(w, "IP:\t%s\n", orNone(strings.Join(ips, ", ")))
	if p.Status.StartTime != nil {
		fmt.Fprintf(w, "Started:\t%s\n", since(p.Status.StartTime.Time))
	}
	line(w, "Service Account", p.Spec.ServiceAccountName)
	line(w, "QoS Class", string(p.Status.QOSClass))
	if len(p.Spec.InitContainers) > 0 {
		fmt.Fprintln(w, "Init Containers:")
		containers(w, p.Spec.InitContainers, p.Status.InitContainerStatuses, true)
	}
	fmt.Fprintln(w, "Containers:")
	containers(w, p.Spec.Containers, p.Status.ContainerStatuses, true)
	podTemplateRest(w, &p.Spec)
	if len(p.Status.Conditions) > 0 {
		rows := [][]string{{"Type", "Status", "Since", "Reason", "Message"}}
		for _, c := range p.Status.Conditions {
			rows = append(rows, []string{string(c.Type), string(c.Status), age(c.LastTransitionTime.Time), c.Reason, c.Message})
		}
		table(w, "Conditions", rows)
	}
}

// podTemplateRest prints what belongs to the pod as a whole, of a pod or of a template.
func podTemplateRest(w io.Writer, spec *corev1.PodSpec) {
	if len(spec.Volumes) > 0 {
		fmt.Fprintln(w, "Volumes:")
		for _, v := range spec.Volumes {
			fmt.Fprintf(w, "  %s:\t%s\n", v.Name, volumeText(v.VolumeSource))
		}
	}
	if len(spec.NodeSelector) > 0 {
		printMap(w, "Node Selector", spec.NodeSelector)
	}
	for i, t := range spec.Tolerations {
		fmt.Fprintf(w, "%s\t%s\n", map[bool]string{true: "Tolerations:"}[i == 0], tolerationText(t))
	}
}

func podStatus(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return fmt.Sprintf("Terminating (since %s)", age(p.DeletionTimestamp.Time))
	}
	return string(p.Status.Phase)
}

// containers prints each container; with status, what became of it comes first.
func containers(w io.Writer, cs []corev1.Container, statuses []corev1.ContainerStatus, withStatus bool) {
	for _, c := range cs {
		fmt.Fprintf(w, "  %s:\n", c.Name)
		if withStatus {
			containerStatus(w, c.Name, statuses)
		}
		fmt.Fprintf(w, "    Image:\t%s\n", c.Image)
		line(w, "    Command", strings.Join(c.Command, " "))
		line(w, "    Args", strings.Join(c.Args, " "))
		ports := make([]string, len(c.Ports))
		for i, p := range c.Ports {
			ports[i] = fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
			if p.Name != "" {
				ports[i] += " (" + p.Name + ")"
			}
			if p.HostPort != 0 {
				ports[i] += fmt.Sprintf(" on port %d of the node", p.HostPort)
			}
		}
		line(w, "    Ports", strings.Join(ports, ", "))
		line(w, "    Requests", resourcesText(c.Resources.Requests))
		line(w, "    Limits", resourcesText(c.Resources.Limits))
		line(w, "    Liveness", probeText(c.LivenessProbe))
		line(w, "    Readiness", probeText(c.ReadinessProbe))
		line(w, "    Startup", probeText(c.StartupProbe))
		label := "Environment:"
		for _, e := range c.EnvFrom {
			fmt.Fprintf(w, "    %s\t%s\n", label, envFromText(e))
			label = ""
		}
		for _, e := range c.Env {
			fmt.Fprintf(w, "    %s\t%s=%s\n", label, e.Name, envText(e))
			label = ""
		}
		label = "Mounts:"
		for _, m := range c.VolumeMounts {
			fmt.Fprintf(w, "    %s\t%s from %s (%s)\n", label, m.MountPath, m.Name, map[bool]string{true: "ro", false: "rw"}[m.ReadOnly])
			label = ""
		}
	}
}

func containerStatus(w io.Writer, name string, statuses []corev1.ContainerStatus) {
	for _, s := range statuses {
		if s.Name != name {
			continue
		}
		fmt.Fprintf(w, "    State:\t%s\n", stateText(s.State))
		if s.LastTerminationState != (corev1.ContainerState{}) {
			fmt.Fprintf(w, "    Last State:\t%s\n", stateText(s.LastTerminationState))
		}
		fmt.Fprintf(w, "    Ready:\t%v\n", s.Ready)
		fmt.Fprintf(w, "    Restarts:\t%d\n", s.RestartCount)
		line(w, "    Container ID", s.ContainerID)
		return
	}
	fmt.Fprintf(w, "    State:\t<the node has not told yet>\n")
}

func stateText(s corev1.ContainerState) string {
	withMessage := func(text, reason, message string) string {
		if reason != "" {
			text += " (" + reason + ")"
		}
		if message = strings.TrimSpace(message); message != "" {
			text += ": " + message
		}
		return text
	}
	switch {
	case s.Running != nil:
		return "Running since " + since(s.Running.StartedAt.Time)
	case s.Terminated != nil:
		text := fmt.Sprintf("Terminated with exit code %d", s.Terminated.ExitCode)
		if s.Terminated.Signal != 0 {
			text += fmt.Sprintf(" by signal %d", s.Terminated.Signal)
		}
		return withMessage(text+" "+since(s.Terminated.FinishedAt.Time), s.Terminated.Reason, s.Terminated.Message)
	case s.Waiting != nil:
		return withMessage("Waiting", s.Waiting.Reason, s.Waiting.Message)
	}
	return "Waiting"
}

func envText(e corev1.EnvVar) string {
	from := e.ValueFrom
	switch {
	case from == nil:
		return e.Value
	case from.FieldRef != nil:
		return "<field " + from.FieldRef.FieldPath + ">"
	case from.ResourceFieldRef != nil:
		return "<resource " + from.ResourceFieldRef.Resource + ">"
	case from.ConfigMapKeyRef != nil:
		return "<key " + from.ConfigMapKeyRef.Key + " of ConfigMap " + from.ConfigMapKeyRef.Name + ">"
	case from.SecretKeyRef != nil:
		return "<key " + from.SecretKeyRef.Key + " of Secret " + from.SecretKeyRef.Name + ">"
	}
	return "<from elsewhere>"
}

func envFromText(e corev1.EnvFromSource) string {
	text := ""
	switch {
	case e.ConfigMapRef != nil:
		text = "all of ConfigMap " + e.ConfigMapRef.Name
	case e.SecretRef != nil:
		text = "all of Secret " + e.SecretRef.Name
	}
	if e.Prefix != "" {
		text += ", prefixed " + e.Prefix
	}
	return text
}

func probeText(p *corev1.Probe) string {
	if p == nil {
		return ""
	}
	text := ""
	port := func(v intstr.IntOrString) string { return ":" + v.String() }
	switch h := p.ProbeHandler; {
	case h.HTTPGet != nil:
		text = strings.ToLower(string(h.HTTPGet.Scheme)) + "://" + h.HTTPGet.Host + port(h.HTTPGet.Port) + h.HTTPGet.Path
	case h.TCPSocket != nil:
		text = "tcp://" + h.TCPSocket.Host + port(h.TCPSocket.Port)
	case h.GRPC != nil:
		text = "grpc://:" + strconv.Itoa(int(h.GRPC.Port))
	case h.Exec != nil:
		text = strings.Join(h.Exec.Command, " ")
	}
	return fmt.Sprintf("%s every %ds, timeout %ds, after %ds, %d failures in a row count", text, p.PeriodSeconds, p.TimeoutSeconds, p.InitialDelaySeconds, p.FailureThreshold)
}

func volumeText(v corev1.VolumeSource) string {
	switch {
	case v.ConfigMap != nil:
		return "ConfigMap " + v.ConfigMap.Name
	case v.Secret != nil:
		return "Secret " + v.Secret.SecretName
	case v.EmptyDir != nil && v.EmptyDir.Medium != "":
		return "empty directory in " + strings.ToLower(string(v.EmptyDir.Medium))
	case v.EmptyDir != nil:
		return "empty directory"
	case v.HostPath != nil:
		return "path " + v.HostPath.Path + " of the node"
	case v.DownwardAPI != nil:
		return "fields of the pod"
	case v.PersistentVolumeClaim != nil:
		return "PersistentVolumeClaim " + v.PersistentVolumeClaim.ClaimName
	case v.Projected != nil:
		var parts []string
		for _, s := range v.Projected.Sources {
			switch {
			case s.ServiceAccountToken != nil:
				parts = append(parts, "ServiceAccount token")
			case s.ConfigMap != nil:
				parts = append(parts, "ConfigMap "+s.ConfigMap.Name)
			case s.Secret != nil:
				parts = append(parts, "Secret "+s.Secret.Name)
			case s.DownwardAPI != nil:
				parts = append(parts, "fields of the pod")
			}
		}
		return strings.Join(parts, ", ")
	}
	return "<another kind of volume; see -o yaml>"
}

func tolerationText(t corev1.Toleration) string {
	text := t.Key
	if t.Value != "" {
		text += "=" + t.Value
	}
	if t.Key == "" {
		text = "every taint"
	}
	if t.Effect != "" {
		text += ":" + string(t.Effect)
	}
	if t.TolerationSeconds != nil {
		text += " for " + (kube.Seconds(*t.TolerationSeconds)).String()
	}
	return text
}

func resourcesText(l corev1.ResourceList) string {
	var parts []string
	for _, k := range sortedKeys(l) {
		q := l[k]
		parts = append(parts, string(k)+"="+q.String())
	}
	return strings.Join(parts, ", ")
}

// line prints a labelled value, unless there is none.
func line(w io.Writer, label, value string) {
	if value != "" {
		fmt.Fprintf(w, "%s:\t%s\n", label, strings.ReplaceAll(strings.TrimSpace(value), "\n", " "))
	}
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func age(t time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t))
}

// since is a time with its age: people ask for both.
func since(t time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return fmt.Sprintf("%s (%s ago)", t.Local().Format("2006-01-02 15:04:05 MST"), age(t))
}
