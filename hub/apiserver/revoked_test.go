package apiserver_test

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"

	"petrel.dev/petrel/hub/auth"
)

// TestRevokedCertificate checks that watches, logs and commands that a certificate has open end when it is revoked, with the
// hub running; its next request is 401. Other users' go on.
func TestRevokedCertificate(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("hubs run on Linux")
	}
	t.Parallel()
	h := newHub(t, withNode(&node{}))
	h.pod("web", "pi-1", "app")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.pki.Run(ctx) }()
	defer func() { cancel(); <-done }()

	admins, err := auth.OpenAdmins(filepath.Join(filepath.Dir(h.kubeconfig), "pki"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := admins.Issue("alice", h.url, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	alice, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := alice.CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	log, err := alice.CoreV1().Pods("default").GetLogs("web", &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	logged := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, log)
		logged <- err
	}()
	ran := map[string]chan error{"websocket": make(chan error, 1), "spdy": make(chan error, 1)}
	for protocol, ended := range ran {
		req := alice.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name("web").SubResource("exec").
			VersionedParams(&corev1.PodExecOptions{Container: "app", Command: []string{"cat"}, Stdin: true, Stdout: true}, scheme.ParameterCodec)
		ex, err := remotecommand.NewSPDYExecutor(config, "POST", req.URL())
		if protocol == "websocket" {
			ex, err = remotecommand.NewWebSocketExecutor(config, "GET", req.URL().String())
		}
		if err != nil {
			t.Fatal(err)
		}
		in, type_ := io.Pipe()
		out, typed := io.Pipe()
		go func() { ended <- ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: typed}) }()
		defer type_.Close()
		if _, err := type_.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	other, err := h.client().CoreV1().ConfigMaps("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Stop()

	if _, err := admins.Revoke("alice"); err != nil {
		t.Fatal(err)
	}
	for range watch.ResultChan() { // until it ends
	}
	if err := <-logged; err != nil {
		t.Logf("the log ended with %v", err)
	}
	for protocol, ended := range ran {
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("%s: the command ended with %v", protocol, err)
		}
	}
	if _, err := alice.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a request of the revoked: %v", err)
	}
	if a := h.do(http.MethodPost, configMaps, `{"metadata":{"name":"after"}}`, "Content-Type: application/json"); a.code != 201 {
		t.Fatalf("the administrator: %+v", a)
	}
	for e := range other.ResultChan() {
		if cm, ok := e.Object.(*corev1.ConfigMap); ok && cm.Name == "after" {
			return
		}
	}
	t.Error("the administrator's watch ended too")
}
