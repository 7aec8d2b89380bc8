// Command etcd is etcd's own server, built from its module: the sample API server keeps its objects there.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
