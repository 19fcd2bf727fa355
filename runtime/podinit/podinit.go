// Package podinit is the program that is number one in the shared PID namespace
// of a pod: it sleeps, and lets the kernel reap the orphans it inherits.
//
// Only pods with shareProcessNamespace need it. Out flow: one file of some 200
// bytes. It is written out by hand instead of being a Go program because a process
// per pod that does nothing should cost one page of memory, and because the agent
// must not depend on an image being present.
package podinit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Program is the file's name in the folder that Install fills.
const Program = "init"

// machine is what differs between processors.
type machine struct {
	elf  uint16 // e_machine
	code []byte
	// The code is followed by a kernel sigaction whose first word is SIG_IGN, at a multiple of 8.
}

// amd64: rt_sigaction(SIGCHLD, &ignore, NULL, 8); for { pause() }
var amd64 = machine{elf: 62, code: []byte{
	0xb8, 0x0d, 0x00, 0x00, 0x00, // mov eax, 13
	0xbf, 0x11, 0x00, 0x00, 0x00, // mov edi, 17
	0x48, 0x8d, 0x35, 0x17, 0x00, 0x00, 0x00, // lea rsi, [rip+23]
	0x31, 0xd2, // xor edx, edx
	0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov r10d, 8
	0x0f, 0x05, // syscall
	0xb8, 0x22, 0x00, 0x00, 0x00, // again: mov eax, 34
	0x0f, 0x05, // syscall
	0xeb, 0xf7, // jmp again
}}

// arm64: rt_sigaction(SIGCHLD, &ignore, NULL, 8); for { ppoll(NULL, 0, NULL, NULL) }
var arm64 = machine{elf: 183, code: words(
	0xd28010c8, // mov x8, 134
	0xd2800220, // mov x0, 17
	0x10000181, // adr x1, 48 bytes ahead
	0xd2800002, // mov x2, 0
	0xd2800103, // mov x3, 8
	0xd4000001, // svc 0
	0xd2800928, // again: mov x8, 73
	0xd2800000, // mov x0, 0
	0xd2800001, // mov x1, 0
	0xd2800002, // mov x2, 0
	0xd2800003, // mov x3, 0
	0xd4000001, // svc 0
	0x17fffffa, // b again
)}

func words(list ...uint32) []byte {
	var b []byte
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// program builds the ELF file: a header, one segment that is the whole file, the code, the data.
func program(architecture string) ([]byte, error) {
	m, ok := map[string]machine{"amd64": amd64, "arm64": arm64}[architecture]
	if !ok {
		return nil, fmt.Errorf("a shared PID namespace needs a pod init, which is not written for %s", architecture)
	}
	const base, headers = 0x400000, 64 + 56
	code := append([]byte(nil), m.code...)
	for (headers+len(code))%8 != 0 {
		code = append(code, 0)
	}
	code = binary.LittleEndian.AppendUint64(code, 1) // SIG_IGN
	code = append(code, make([]byte, 24)...)         // flags, restorer, mask
	size := uint64(headers + len(code))

	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	for _, field := range []any{
		uint16(2), m.elf, uint32(1), uint64(base + headers), uint64(64), uint64(0), uint32(0), // type, machine, version, entry, phoff, shoff, flags
		uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0), // header sizes and counts
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000), // PT_LOAD, readable and executable
	} {
		// Writing fixed-size integers to a buffer cannot fail.
		_ = binary.Write(&b, binary.LittleEndian, field)
	}
	b.Write(code)
	return b.Bytes(), nil
}

// Install makes dir a root file system with the program and the mount points that a container needs.
func Install(dir, architecture string) error {
	elf, err := program(architecture)
	if err != nil {
		return err
	}
	for _, name := range []string{"", "proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return fmt.Errorf("pod init: %w", err)
		}
	}
	file := filepath.Join(dir, Program)
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, elf) {
		return nil
	}
	// A running program cannot be written to; replace its file.
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("pod init: %w", err)
	}
	if err := os.WriteFile(file, elf, 0o755); err != nil {
		return fmt.Errorf("pod init: %w", err)
	}
	return nil
}
