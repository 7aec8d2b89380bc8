//go:build !linux

package auth

import "errors"

// watchDir is for Linux, where hubs run: elsewhere a hub takes a changed list at its next start.
func watchDir(string) (changed <-chan struct{}, stop func(), err error) {
	return nil, nil, errors.New("this system does not report when a file changes: restart the hub after petrel admin revoke")
}
