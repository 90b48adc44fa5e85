package kernel

import (
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deafness is a socket filter that accepts no byte of any packet. It is one
// program in the kernel for all sockets (bpf(2)): a filter of the older kind
// (Documentation/networking/filter.rst) is checked, compiled and given a page of
// memory for each socket anew, which takes longer than the socket itself.
type deafness struct {
	once    sync.Once
	program int // descriptor; 0: not loaded, or not allowed to
}

// attach makes a socket deaf. SO_DETACH_FILTER makes it hear again.
func (d *deafness) attach(fd int) error {
	d.once.Do(func() { d.program = loadDeaf() })
	if d.program > 0 && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, d.program) == nil {
		return nil
	}
	nothing := &unix.SockFprog{Len: 1, Filter: &unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, nothing)
}

// close lets go of the program; sockets that have it keep it.
func (d *deafness) close() {
	d.once.Do(func() {})
	if d.program > 0 {
		unix.Close(d.program)
	}
}

// loadDeaf loads "r0 = 0; exit" and returns its descriptor, or 0.
func loadDeaf() int {
	instructions := [...]uint64{0xb7, 0x95} // BPF_ALU64|BPF_MOV|BPF_K, BPF_JMP|BPF_EXIT: the rest of each is zero
	license := [1]byte{}
	attributes := struct { // of union bpf_attr of <linux/bpf.h>: the kernel takes what is missing for zero
		kind, count           uint32
		instructions, license uint64
	}{
		kind: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: uint32(len(instructions)),
		instructions: uint64(uintptr(unsafe.Pointer(&instructions))), license: uint64(uintptr(unsafe.Pointer(&license))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	runtime.KeepAlive(&instructions)
	runtime.KeepAlive(&license)
	if errno != 0 {
		return 0
	}
	return int(fd)
}
