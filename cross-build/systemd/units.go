// Package systemd has the units of hub and agent, as packages and `petrel install` place them.
package systemd

import "embed"

// Units has petrel-hub.service and petrel-agent.service.
//
//go:embed *.service
var Units embed.FS
