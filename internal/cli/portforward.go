package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// PortForward listens here and forwards to a pod.
type PortForward struct {
	Cluster
	Pod     string   `arg:"" help:"POD or TYPE/NAME (a Service or Deployment means one of its pods)."`
	Ports   []string `arg:"" help:"LOCAL:REMOTE, REMOTE, or :REMOTE for any free local port. A Service's ports may be named."`
	Address []string `default:"localhost" help:"Local addresses to listen on." placeholder:"ADDRESS"`
}

// Run forwards until it is interrupted or the pod goes away.
func (p *PortForward) Run(ctx context.Context, s *Streams) error {
	c, err := p.connect(ctx, s)
	if err != nil {
		return err
	}
	pod, err := c.podOf(ctx, p.Pod)
	if err != nil {
		return err
	}
	if pod.Status.Phase != corev1.PodRunning {
		return fmt.Errorf("pod %s is %s; only a running pod can be forwarded to", pod.Name, pod.Status.Phase)
	}
	ports := p.Ports
	if typ, name, ok := strings.Cut(p.Pod, "/"); ok && isService(typ) {
		if ports, err = c.servicePorts(ctx, name, pod, p.Ports); err != nil {
			return err
		}
	}
	u, err := url.Parse(c.config.Host + "/api/v1/namespaces/" + pod.Namespace + "/pods/" + pod.Name + "/portforward")
	if err != nil {
		return err
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, c.config)
	if err != nil {
		return err
	}
	dialer = portforward.NewFallbackDialer(tunnel, dialer, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	fw, err := portforward.NewOnAddresses(dialer, p.Address, ports, ctx.Done(), make(chan struct{}), s.Out, s.Err)
	if err != nil {
		return err
	}
	if err := fw.ForwardPorts(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func isService(typ string) bool { return typ == "svc" || typ == "service" || typ == "services" }

// servicePorts turns LOCAL:SERVICEPORT into LOCAL:CONTAINERPORT of the chosen pod.
func (c *conn) servicePorts(ctx context.Context, name string, pod *corev1.Pod, ports []string) ([]string, error) {
	obj, err := c.dynamic.Resource(corev1.SchemeGroupVersion.WithResource("services")).Namespace(pod.Namespace).Get(ctx, name, v1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var svc corev1.Service
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &svc); err != nil {
		return nil, err
	}
	out := make([]string, len(ports))
	for i, p := range ports {
		local, remote, ok := strings.Cut(p, ":")
		if !ok {
			local, remote = "", p
		}
		port, number, err := targetPort(&svc, pod, remote)
		if err != nil {
			return nil, err
		}
		if !ok {
			local = strconv.Itoa(int(number))
		}
		out[i] = fmt.Sprintf("%s:%d", local, port)
	}
	return out, nil
}

// targetPort finds the container port behind a Service's port, given by number or name.
func targetPort(svc *corev1.Service, pod *corev1.Pod, asked string) (container, service int32, err error) {
	for _, p := range svc.Spec.Ports {
		if p.Name != asked && strconv.Itoa(int(p.Port)) != asked {
			continue
		}
		if p.TargetPort.Type == intstr.Int {
			if p.TargetPort.IntVal == 0 {
				return p.Port, p.Port, nil
			}
			return p.TargetPort.IntVal, p.Port, nil
		}
		for _, ct := range pod.Spec.Containers {
			for _, cp := range ct.Ports {
				if cp.Name == p.TargetPort.StrVal {
					return cp.ContainerPort, p.Port, nil
				}
			}
		}
		return 0, 0, fmt.Errorf("pod %s has no port named %q, which Service %s sends to", pod.Name, p.TargetPort.StrVal, svc.Name)
	}
	return 0, 0, errors.New("Service " + svc.Name + " has no port " + asked)
}
