package runtimetest

import (
	"os"
	"testing"
)

func TestFake(t *testing.T) {
	Run(t, func(t *testing.T) Subject {
		f := NewFake(t.TempDir(), "test/image:1")
		f.Host = t.TempDir()
		return Subject{Runtime: f, Image: "test/image:1", ReadLog: func(t *testing.T, path string) string {
			b, err := os.ReadFile(path)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			return string(b)
		}}
	})
}
