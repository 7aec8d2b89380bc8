package podnet

const proxyCommand = "svcproxy-child"

func runProxy(args []string) {}
