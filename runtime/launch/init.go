package launch

import (
	"encoding/binary"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitName is the name under which the shim's program is the container's PID 1.
const InitName = "/sbin/docker-init"

const (
	initReport = 3         // the descriptor on which the init tells why it failed; it closes it otherwise
	initFailed = 1<<64 - 1 // instead of the number of a step
)

// Init is the life of a PID 1 for programs that were not written to be one: it
// starts the program given after "--", hands it all signals, takes away the
// zombies that are left to PID 1, and returns the exit code when the program
// has ended; the kernel then kills the rest.
//
// A process without a handler for a signal ignores it as PID 1 (pid_namespaces(7)),
// which is why a plain `sleep` as PID 1 does not end on SIGTERM.
func Init(args []string) int {
	if len(args) < 2 || args[0] != "--" {
		os.Stderr.WriteString(InitName + ": want -- PROGRAM\n")
		return 127
	}
	unix.CloseOnExec(initReport)
	os.WriteFile("/proc/self/comm", []byte(filepath.Base(InitName)), 0) //nolint:errcheck // for ps alone, which else shows where the program came from
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	args = args[1:]
	program, err := findProgram(args[0], os.Environ())
	pid := 0
	if err == nil {
		_, terr := unix.IoctlGetTermios(0, unix.TCGETS)
		pid, err = syscall.ForkExec(program, args, &syscall.ProcAttr{
			Env: os.Environ(), Files: []uintptr{0, 1, 2},
			// A terminal's Ctrl-C goes to its foreground group; we are to stay out of it.
			Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: terr == nil, Ctty: 0},
		})
	}
	if err != nil {
		errno := unix.ENOENT
		errors.As(err, &errno)
		report := binary.NativeEndian.AppendUint64(nil, initFailed)
		unix.Write(initReport, binary.NativeEndian.AppendUint64(report, uint64(errno)))
		return 126
	}
	unix.Close(initReport)
	for s := range signals {
		number, _ := s.(syscall.Signal)
		switch number {
		case unix.SIGCHLD:
			if code, ended := reapAll(pid); ended {
				return code
			}
		case unix.SIGURG: // the Go runtime's own
		default:
			unix.Kill(pid, number)
		}
	}
	return 0
}

// reapAll takes away all zombies, and tells whether the program was one.
func reapAll(program int) (int, bool) {
	code, ended := 0, false
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid != program {
			continue
		}
		code, ended = status.ExitStatus(), true
		if status.Signaled() {
			code = 128 + int(status.Signal())
		}
	}
}
