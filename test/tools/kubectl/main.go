// Command kubectl is the real kubectl of the Kubernetes version that Petrel serves, built for the tests, so that they do
// not depend on what the machine has. It is never shipped. Its own version is set by the linker:
//
//	go build -ldflags '-X k8s.io/component-base/version.gitVersion=v1.36.3' ./test/tools/kubectl
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
)

func main() {
	os.Exit(cli.Run(cmd.NewDefaultKubectlCommand()))
}
