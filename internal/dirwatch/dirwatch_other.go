//go:build !linux

package dirwatch

import "errors"

// Watch is for Linux, where hubs run: elsewhere a hub sees changes at its next start.
func Watch(string) (changed <-chan struct{}, stop func(), err error) {
	return nil, nil, errors.New("this system does not report when a file changes: start the hub again after a change")
}
