// Package initprogram writes the program that is the first process of a pod whose containers share their processes. It needs no compiler.
package initprogram

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// machineCode is the whole first process of a pod's shared process namespace, one for each architecture: it ignores SIGCHLD,
// which has the kernel bury the orphans that it inherits, and sleeps. Petrel's own binary could do that too, but would
// cost each such pod some 20 MB; this costs a page or two. The kernel shields the first process of a namespace from
// signals that it has no handler for, so that nothing in the pod can end it.
//
// The code is followed by the argument of rt_sigaction: SIG_IGN (1), no flags, an empty mask.
var machineCode = map[string][]byte{
	"amd64": {
		0xb8, 13, 0, 0, 0, //             mov  eax, 13            rt_sigaction(
		0xbf, 17, 0, 0, 0, //             mov  edi, 17              SIGCHLD,
		0x48, 0x8d, 0x35, 19, 0, 0, 0, // lea  rsi, [rip+19]        what follows the code,
		0x31, 0xd2, //                    xor  edx, edx             nil,
		0x41, 0xba, 8, 0, 0, 0, //        mov  r10d, 8              8)
		0x0f, 0x05, //                    syscall
		0xb8, 34, 0, 0, 0, //             mov  eax, 34            pause()
		0x0f, 0x05, //                    syscall
		0xeb, 0xf7, //                    jmp  -9                 again
	},
	"arm64": words(
		0xd28010c8, // mov x8, #134           rt_sigaction(
		0xd2800220, // mov x0, #17              SIGCHLD,
		0x10000161, // adr x1, .+44             what follows the code,
		0xd2800002, // mov x2, #0               nil,
		0xd2800103, // mov x3, #8               8)
		0xd4000001, // svc #0
		0xd2800928, // mov x8, #73            ppoll(
		0xd2800000, // mov x0, #0               nil,
		0xd2800001, // mov x1, #0               0,
		0xd2800002, // mov x2, #0               nil,
		0xd2800003, // mov x3, #0               nil)
		0xd4000001, // svc #0
		0x17fffffa, // b   -6 instructions    again
	),
	"arm": words(
		0xe3a070ae, // mov r7, #174           rt_sigaction(
		0xe3a00011, // mov r0, #17              SIGCHLD,
		0xe28f1014, // add r1, pc, #20          what follows the code,
		0xe3a02000, // mov r2, #0               nil,
		0xe3a03008, // mov r3, #8               8)
		0xef000000, // svc 0
		0xe3a0701d, // mov r7, #29            pause()
		0xef000000, // svc 0
		0xeafffffc, // b   -2 instructions    again
	),
}

func words(list ...uint32) []byte {
	var out []byte
	for _, w := range list {
		out = binary.LittleEndian.AppendUint32(out, w)
	}
	return out
}

const (
	base  = 0x400000
	align = 0x10000 // the largest page of any kernel that is of interest
)

// ELF returns the ELF executable of the pod's first process, in a single segment that nobody writes to. The form
// is that of elf(5).
func ELF(arch string) ([]byte, error) {
	code, ok := machineCode[arch]
	if !ok {
		return nil, fmt.Errorf("no first process of a shared process namespace for %s", arch)
	}
	action := make([]byte, 32)
	action[0] = 1 // SIG_IGN
	machine := map[string]uint16{"amd64": 62, "arm64": 183, "arm": 40}[arch]
	class, header, segment := byte(2), uint32(64), uint32(56)
	if arch == "arm" {
		class, header, segment = 1, 52, 32
	}
	start := header + segment
	size := start + uint32(len(code)+len(action))
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', class, 1, 1})
	b.Write(make([]byte, 9))
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, binary.LittleEndian, v) // to memory
		}
	}
	const executable, version, load, readExecute = uint16(2), uint32(1), uint32(1), uint32(5)
	put(executable, machine, version)
	if class == 1 {
		const eabi5 = uint32(0x05000000)
		put(base+start, header, uint32(0), eabi5, uint16(header), uint16(segment), uint16(1), uint16(0), uint16(0), uint16(0))
		put(load, uint32(0), uint32(base), uint32(base), size, size, readExecute, uint32(align))
	} else {
		put(uint64(base+start), uint64(header), uint64(0), uint32(0), uint16(header), uint16(segment), uint16(1), uint16(0), uint16(0), uint16(0))
		put(load, readExecute, uint64(0), uint64(base), uint64(base), uint64(size), uint64(size), uint64(align))
	}
	b.Write(code)
	b.Write(action)
	return b.Bytes(), nil
}
