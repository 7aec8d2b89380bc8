//go:build !linux

package main

// machineCommands has nothing here: hubs and nodes run on Linux, and this is the client of a fleet.
type machineCommands struct{}

func inside() map[string]string { return nil }
