package seccomp

import (
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkInstall is what a filter costs each start: the kernel checks and
// translates it, and asks it about every call number. Every iteration throws
// its thread away, as filters cannot be taken off again.
func BenchmarkInstall(b *testing.B) {
	filter, err := Default(nil)
	if err != nil {
		b.Fatal(err)
	}
	instructions := unsafe.Slice((*unix.SockFilter)(unsafe.Pointer(&filter[0])), len(filter)/8)
	program := &unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
	install := func() (err error) {
		if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(program))); errno != 0 {
			return errno
		}
		return nil
	}
	for b.Loop() {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlocked
			done <- install()
		}()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
