// Package dirwatch reports that files of a directory have changed, without looking at it again and again.
package dirwatch
