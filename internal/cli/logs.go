package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"petrel.dev/petrel/internal/cli/message"
	"petrel.dev/petrel/internal/cli/podlogs"
	"petrel.dev/petrel/internal/cli/screen"
)

// Logs prints what containers wrote.
type Logs struct {
	Cluster
	Args          []string      `arg:"" optional:"" name:"pod" help:"POD or TYPE/NAME (a Deployment means one of its pods), and perhaps a container."`
	Container     string        `short:"c" help:"Container of the pod. Default: the only or first one." placeholder:"NAME"`
	AllContainers bool          `help:"All containers of the pod."`
	Follow        bool          `short:"f" help:"Go on with what comes."`
	Previous      bool          `short:"p" help:"Of the container's previous life, before its last restart."`
	Tail          int64         `default:"-1" help:"Only this many of the latest lines; -1 all." placeholder:"N"`
	Since         time.Duration `help:"Only what is newer than this." placeholder:"DURATION"`
	Timestamps    bool          `help:"With the time of each line."`
	LimitBytes    int64         `help:"Not more than this many bytes." placeholder:"N"`
	Selector      string        `short:"l" help:"Of all pods with these labels." placeholder:"SELECTOR"`
	Prefix        bool          `help:"Begin each line with its pod and container."`
	AllNodes      bool          `help:"With -l or TYPE/NAME: of all containers of all its pods on whatever node, as one log by the time of the lines; with -f also of pods that come. What cannot be read, because its node is dark, is named, and the others go on."`
	MaxLogs       int           `name:"max-log-requests" default:"200" help:"With --all-nodes: how many logs are read at once." placeholder:"N"`
}

// Run copies the logs to the output; those of several containers line by line.
func (l *Logs) Run(ctx context.Context, s *Streams) error {
	c, err := l.connect(ctx, s)
	if err != nil {
		return err
	}
	args := l.Args
	if len(args) == 2 && !strings.Contains(args[1], "/") && l.Container == "" {
		l.Container, args = args[1], args[:1]
	}
	if l.AllNodes {
		return l.merged(ctx, c, s, args)
	}
	var pods []*corev1.Pod
	switch {
	case l.Selector != "":
		if pods, err = c.podsBySelector(ctx, l.Selector); err != nil {
			return err
		}
		if len(pods) == 0 {
			return fmt.Errorf("no pods in namespace %s match %q", c.namespace, l.Selector)
		}
	case len(args) == 1:
		pod, err := c.podOf(ctx, args[0])
		if err != nil {
			return err
		}
		pods = []*corev1.Pod{pod}
	default:
		return errors.New("name one pod, as POD or TYPE/NAME, or several by -l SELECTOR")
	}
	type source struct{ pod, container string }
	var sources []source
	for _, p := range pods {
		if !l.AllContainers {
			name, err := l.containerOf(s, p)
			if err != nil {
				return err
			}
			sources = append(sources, source{p.Name, name})
			continue
		}
		for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
			for _, ct := range list {
				sources = append(sources, source{p.Name, ct.Name})
			}
		}
	}
	if len(sources) == 1 && !l.Prefix {
		body, err := l.open(ctx, c, sources[0].pod, sources[0].container)
		if err != nil {
			return err
		}
		defer body.Close()
		if _, err := io.Copy(s.Out, body); err != nil && ctx.Err() == nil {
			return fmt.Errorf("the log stream was cut: %w", err)
		}
		return nil
	}
	var mu sync.Mutex
	copyLines := func(src source) error {
		body, err := l.open(ctx, c, src.pod, src.container)
		if err != nil {
			return fmt.Errorf("%s/%s: %s", src.pod, src.container, message.Of(err))
		}
		defer body.Close()
		for r := bufio.NewReader(body); ; {
			line, err := r.ReadString('\n')
			if line != "" {
				mu.Lock()
				if l.Prefix {
					fmt.Fprintf(s.Out, "[pod/%s/%s] ", src.pod, src.container)
				}
				io.WriteString(s.Out, line)
				mu.Unlock()
			}
			if err != nil {
				return nil
			}
		}
	}
	errs := make([]error, len(sources))
	if !l.Follow {
		for i, src := range sources {
			errs[i] = copyLines(src)
		}
		return errors.Join(errs...)
	}
	var wg sync.WaitGroup
	for i, src := range sources {
		wg.Go(func() { errs[i] = copyLines(src) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// merged prints the logs of all pods as one.
func (l *Logs) merged(ctx context.Context, c *conn, s *Streams, args []string) error {
	selector := l.Selector
	switch {
	case selector != "" && len(args) > 0:
		return errors.New("give a workload or a selector, not both")
	case selector != "":
	case len(args) != 1 || !strings.Contains(args[0], "/"):
		return errors.New("--all-nodes needs -l SELECTOR, or TYPE/NAME of a workload")
	default:
		t, err := c.one(args)
		if err != nil {
			return err
		}
		obj, err := c.get(ctx, t, c.namespace)
		if err != nil {
			return err
		}
		if selector, err = selectorOf(obj); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
	}
	r := &podlogs.Request{
		Pods: c.dynamic.Resource(podResource).Namespace(c.namespace), Selector: selector, Container: l.Container, Query: l.query(),
		Open: func(ctx context.Context, pod string, q url.Values) (io.ReadCloser, error) {
			return c.raw(ctx, "/api/v1/namespaces/"+c.namespace+"/pods/"+pod+"/log", q, "*/*")
		},
		Explain: message.Of, Follow: l.Follow, Timestamps: l.Timestamps, Colours: screen.Colours(s.Out, l.Color), Limit: l.MaxLogs, Out: s.Out, Err: s.Err,
	}
	return r.Run(ctx)
}

func (l *Logs) open(ctx context.Context, c *conn, pod, container string) (io.ReadCloser, error) {
	q := l.query()
	q.Set("container", container)
	return c.raw(ctx, "/api/v1/namespaces/"+c.namespace+"/pods/"+pod+"/log", q, "*/*")
}

// query returns what is asked for of each log, without the container.
func (l *Logs) query() url.Values {
	q := url.Values{}
	flag := func(name string, on bool) {
		if on {
			q.Set(name, "true")
		}
	}
	flag("follow", l.Follow)
	flag("previous", l.Previous)
	flag("timestamps", l.Timestamps)
	if l.Tail >= 0 {
		q.Set("tailLines", strconv.FormatInt(l.Tail, 10))
	}
	if l.Since > 0 {
		q.Set("sinceSeconds", strconv.FormatInt(int64((l.Since+time.Second-1)/time.Second), 10))
	}
	if l.LimitBytes > 0 {
		q.Set("limitBytes", strconv.FormatInt(l.LimitBytes, 10))
	}
	return q
}

func (l *Logs) containerOf(s *Streams, p *corev1.Pod) (string, error) {
	return chooseContainer(s, p, l.Container)
}

// chooseContainer checks the requested container, or takes the pod's default one and prints which when there are several.
func chooseContainer(s *Streams, p *corev1.Pod, asked string) (string, error) {
	var names []string
	for _, list := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for _, ct := range list {
			if ct.Name == asked {
				return asked, nil
			}
			names = append(names, ct.Name)
		}
	}
	if asked != "" {
		return "", fmt.Errorf("pod %s has no container %q; it has %s", p.Name, asked, strings.Join(names, ", "))
	}
	if d := p.Annotations["kubectl.kubernetes.io/default-container"]; d != "" {
		return d, nil
	}
	if len(p.Spec.Containers) > 1 {
		fmt.Fprintf(s.Err, "Defaulted container %q out of: %s\n", names[0], strings.Join(names, ", "))
	}
	return names[0], nil
}

var (
	podResource  = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	nodeResource = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
)

// podOf finds the pod that an argument names: its name, pod/NAME, or the first running pod of a workload.
func (c *conn) podOf(ctx context.Context, arg string) (*corev1.Pod, error) {
	typ, name, ok := strings.Cut(arg, "/")
	if !ok {
		typ, name = "pod", arg
	}
	t, err := c.one([]string{typ + "/" + name})
	if err != nil {
		return nil, err
	}
	obj, err := c.get(ctx, t, c.namespace)
	if err != nil {
		return nil, err
	}
	if t.mapping.GroupVersionKind.Kind == "Pod" {
		return toPod(obj)
	}
	selector, err := selectorOf(obj)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	pods, err := c.podsBySelector(ctx, selector)
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		if p.Status.Phase == corev1.PodRunning {
			return p, nil
		}
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("%s has no pods", arg)
	}
	return pods[0], nil
}

// selectorOf returns the label selector of a workload or Service.
func selectorOf(obj *unstructured.Unstructured) (string, error) {
	m, found, err := unstructured.NestedMap(obj.Object, "spec", "selector")
	if err != nil || !found {
		return "", errors.New("it selects no pods")
	}
	if _, isSelector := m["matchLabels"]; !isSelector && m["matchExpressions"] == nil {
		plain, _, err := unstructured.NestedStringMap(obj.Object, "spec", "selector")
		if err != nil {
			return "", err
		}
		return metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: plain}), nil
	}
	var ls metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &ls); err != nil {
		return "", err
	}
	sel, err := metav1.LabelSelectorAsSelector(&ls)
	if err != nil {
		return "", err
	}
	return sel.String(), nil
}

func (c *conn) podsBySelector(ctx context.Context, selector string) ([]*corev1.Pod, error) {
	list, err := c.dynamic.Resource(podResource).Namespace(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	pods := make([]*corev1.Pod, len(list.Items))
	for i := range list.Items {
		if pods[i], err = toPod(&list.Items[i]); err != nil {
			return nil, err
		}
	}
	return pods, nil
}

func toPod(o *unstructured.Unstructured) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	return pod, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, pod)
}
