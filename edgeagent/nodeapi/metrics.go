package nodeapi

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"petrel.dev/petrel/edgeagent/cgroupstat"
)

// family is one metric with its samples, in Prometheus' text form. The form is a handful of lines; the library for it would be an
// agent's largest dependency.
type family struct {
	name, kind, help string
	rows             []row
}

type row struct {
	labels []string // name, value, name, value ...
	value  float64
	at     time.Time // zero: now
}

func (f *family) add(value float64, at time.Time, labels ...string) {
	f.rows = append(f.rows, row{labels, value, at})
}

// escape writes a label's value as the text form wants it.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func writeFamilies(w http.ResponseWriter, families ...*family) {
	var b bytes.Buffer
	for _, f := range families {
		if len(f.rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		for _, r := range f.rows {
			b.WriteString(f.name)
			for i := 0; i+1 < len(r.labels); i += 2 {
				sep := ","
				if i == 0 {
					sep = "{"
				}
				fmt.Fprintf(&b, `%s%s="%s"`, sep, r.labels[i], escape.Replace(r.labels[i+1]))
			}
			if len(r.labels) > 0 {
				b.WriteByte('}')
			}
			b.WriteString(" " + strconv.FormatFloat(r.value, 'g', -1, 64))
			if !r.at.IsZero() {
				b.WriteString(" " + strconv.FormatInt(r.at.UnixMilli(), 10))
			}
			b.WriteByte('\n')
		}
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // the hub has gone
}

// resourceMetrics answers what metrics-server reads of a kubelet: counters, from which the reader makes rates.
func (s *Server) resourceMetrics(w http.ResponseWriter, _ *http.Request) {
	now := s.readAll()
	nodeCPU := &family{name: "node_cpu_usage_seconds_total", kind: "counter", help: "Cumulative cpu time consumed by the node in core-seconds"}
	nodeMem := &family{name: "node_memory_working_set_bytes", kind: "gauge", help: "Current working set of the node in bytes"}
	podCPU := &family{name: "pod_cpu_usage_seconds_total", kind: "counter", help: "Cumulative cpu time consumed by the pod in core-seconds"}
	podMem := &family{name: "pod_memory_working_set_bytes", kind: "gauge", help: "Current working set of the pod in bytes"}
	cpu := &family{name: "container_cpu_usage_seconds_total", kind: "counter", help: "Cumulative cpu time consumed by the container in core-seconds"}
	mem := &family{name: "container_memory_working_set_bytes", kind: "gauge", help: "Current working set of the container in bytes"}
	start := &family{name: "container_start_time_seconds", kind: "gauge", help: "Start time of the container since unix epoch in seconds"}
	failed := &family{name: "resource_scrape_error", kind: "gauge", help: "1 if there was an error while getting container metrics, 0 otherwise"}
	if u, ok := now[machineKey]; ok {
		usage{u}.addTo(nodeCPU, nodeMem)
		failed.add(0, time.Time{})
	} else {
		failed.add(1, time.Time{})
	}
	s.each(now, func(pod *corev1.Pod, c container, u usage) {
		if c.name == "" {
			u.addTo(podCPU, podMem, "namespace", pod.Namespace, "pod", pod.Name)
			return
		}
		u.addTo(cpu, mem, "container", c.name, "namespace", pod.Namespace, "pod", pod.Name)
		start.add(float64(c.started.Unix()), time.Time{}, "container", c.name, "namespace", pod.Namespace, "pod", pod.Name)
	})
	writeFamilies(w, cpu, mem, start, nodeCPU, nodeMem, podCPU, podMem, failed)
}

// usage is a cgroup's, as metrics show it.
type usage struct{ cgroupstat.Usage }

// addTo adds what the kernel counts.
func (u usage) addTo(cpu, memory *family, labels ...string) {
	if u.HasCPU {
		cpu.add(u.CPU.Seconds(), u.At, labels...)
	}
	if u.HasMemory {
		memory.add(float64(u.WorkingSet), u.At, labels...)
	}
}

// each calls f for each running container that was sampled, and with a container without a name for each pod.
func (s *Server) each(now samples, f func(pod *corev1.Pod, c container, u usage)) {
	for _, pod := range s.cfg.Pods() {
		for _, c := range append(runningContainers(pod), container{}) {
			if u, ok := now[s.cfg.Cgroup(string(pod.UID), c.id)]; ok {
				f(pod, c, usage{u})
			}
		}
	}
}

// containerMetrics answers the part of cAdvisor's metrics that comes from cgroups, under its names and labels.
func (s *Server) containerMetrics(w http.ResponseWriter, _ *http.Request) {
	now := s.readAll()
	cpu := &family{name: "container_cpu_usage_seconds_total", kind: "counter", help: "Cumulative cpu time consumed in seconds."}
	set := &family{name: "container_memory_working_set_bytes", kind: "gauge", help: "Current working set in bytes."}
	mem := &family{name: "container_memory_usage_bytes", kind: "gauge", help: "Current memory usage in bytes, including all memory regardless of when it was accessed"}
	rss := &family{name: "container_memory_rss", kind: "gauge", help: "Size of RSS in bytes."}
	start := &family{name: "container_start_time_seconds", kind: "gauge", help: "Start time of the container since unix epoch in seconds."}
	seen := &family{name: "container_last_seen", kind: "gauge", help: "Last time a container was seen by the exporter"}
	add := func(u usage, labels ...string) {
		u.addTo(cpu, set, labels...)
		if u.HasMemory {
			mem.add(float64(u.Memory), u.At, labels...)
			rss.add(float64(u.RSS), u.At, labels...)
		}
		seen.add(float64(u.At.Unix()), u.At, labels...)
	}
	labels := func(container, id, image, name, namespace, pod string) []string {
		return []string{"container", container, "id", id, "image", image, "name", name, "namespace", namespace, "pod", pod}
	}
	machine, ok := now[machineKey]
	if ok {
		add(usage{machine}, labels("", "/", "", "", "", "")...)
	}
	s.each(now, func(pod *corev1.Pod, c container, u usage) {
		l := labels(c.name, s.cfg.Cgroup(string(pod.UID), c.id), c.image, c.id, pod.Namespace, pod.Name)
		add(u, l...)
		if c.name != "" {
			start.add(float64(c.started.Unix()), time.Time{}, l...)
		}
	})
	cores := &family{name: "machine_cpu_cores", kind: "gauge", help: "Number of logical CPU cores."}
	cores.add(float64(runtime.NumCPU()), time.Time{})
	memory := &family{name: "machine_memory_bytes", kind: "gauge", help: "Amount of memory installed on the machine."}
	if ok && machine.HasMemory {
		memory.add(float64(machine.WorkingSet+machine.Available), time.Time{})
	}
	writeFamilies(w, cpu, set, mem, rss, start, seen, cores, memory)
}

// ownMetrics answers with those of the agent itself.
func (s *Server) ownMetrics(w http.ResponseWriter, _ *http.Request) {
	pods := &family{name: "kubelet_running_pods", kind: "gauge", help: "Number of pods that have a running container"}
	containers := &family{name: "kubelet_running_containers", kind: "gauge", help: "Number of containers currently running"}
	var withContainers, running int
	for _, pod := range s.cfg.Pods() {
		if n := len(runningContainers(pod)); n > 0 {
			withContainers, running = withContainers+1, running+n
		}
	}
	pods.add(float64(withContainers), time.Time{})
	containers.add(float64(running), time.Time{}, "container_state", "running")
	panics := &family{name: "petrel_contained_panics_total", kind: "counter", help: "Panics that the agent has contained since it started"}
	panics.add(float64(s.cfg.Panics()), time.Time{})
	cpu := &family{name: "process_cpu_seconds_total", kind: "counter", help: "Total user and system CPU time spent in seconds."}
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		cpu.add(time.Duration(r.Utime.Nano()+r.Stime.Nano()).Seconds(), time.Time{})
	}
	rss := &family{name: "process_resident_memory_bytes", kind: "gauge", help: "Resident memory size in bytes."}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			if pages, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				rss.add(float64(pages)*float64(os.Getpagesize()), time.Time{})
			}
		}
	}
	threads := &family{name: "go_goroutines", kind: "gauge", help: "Number of goroutines that currently exist."}
	threads.add(float64(runtime.NumGoroutine()), time.Time{})
	writeFamilies(w, pods, containers, panics, cpu, rss, threads)
}
