//go:build !embedded || !linux || !(amd64 || arm64 || arm || riscv64)

package programs

// Nothing is inside this build.
const archive, manifest = "", ""
