package runtime

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/runtime/launch"
)

//go:embed shim
var embedded embed.FS

// openShim copies the shim's binary into memory and seals it: a container that
// gets hold of /proc/PID/exe of the process that becomes it (CVE-2019-5736)
// finds nothing that it could change, and all shims share its pages.
func openShim(path string) (*os.File, error) {
	var source io.ReadCloser
	var err error
	if path != "" {
		source, err = os.Open(path)
	} else {
		source, err = embedded.Open("shim/linkspan-shim")
	}
	if errors.Is(err, fs.ErrNotExist) && path == "" {
		return nil, errors.New("this daemon was built without its shim: run make, which builds runtime/shim/linkspan-shim first")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the shim: %w", err)
	}
	defer source.Close()
	fd, err := unix.MemfdCreate("linkspan-shim", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("copying the shim into memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), "linkspan-shim")
	if _, err = io.Copy(file, source); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("copying the shim into memory: %w", err)
	}
	return file, nil
}

// spawn starts a shim on a listening socket, and returns our first connection
// to it. The shim waits for the launch, so this overlaps with its start.
func (r *Runtime) spawn(c Container) (*os.Process, *launch.Conn, error) {
	dir := r.execDir(c.ID)
	listening, err := launch.Listen(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("making the shim's socket in %s: %w", dir, err)
	}
	defer unix.Close(listening)
	conn, err := launch.Dial(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to the shim's socket in %s: %w", dir, err)
	}
	process, err := r.exec(c, listening)
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("starting the shim: %w", err)
	}
	return process, conn, nil
}

func (r *Runtime) exec(c Container, listening int) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	complaints, err := os.OpenFile(filepath.Join(r.execDir(c.ID), "shim.err"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer complaints.Close()
	raw, err := r.shim.SyscallConn()
	if err != nil {
		return nil, err
	}
	listener, err := dup(listening)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	var process *os.Process
	var started error
	err = raw.Control(func(fd uintptr) {
		process, started = os.StartProcess("/proc/self/fd/"+strconv.Itoa(int(fd)), []string{"linkspan-shim", c.ID.Short()}, &os.ProcAttr{
			Dir: "/",
			// One processor, and a small heap: a shim mostly waits.
			Env:   []string{"GOMAXPROCS=1", "GOGC=20"},
			Files: []*os.File{null, null, complaints, listener},
			Sys:   &syscall.SysProcAttr{Setsid: true}, // a terminal that goes away must not take it along
		})
	})
	return process, errors.Join(err, started)
}

// dup wraps a copy, since closing an os.File closes its descriptor.
func dup(fd int) (*os.File, error) {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(copied), "listener"), nil
}

// ask sends one request to the shim of a container and returns the first
// answer. The caller closes the connection.
func (r *Runtime) ask(c Container, kind launch.Request, payload []byte) (*launch.Conn, launch.Request, []byte, error) {
	conn, err := launch.Dial(r.execDir(c.ID))
	if err != nil {
		return nil, 0, nil, fmt.Errorf("connecting to the shim of container %s: %w", c.ID.Short(), err)
	}
	if err = conn.Send(kind, payload); err != nil {
		conn.Close()
		return nil, 0, nil, fmt.Errorf("asking the shim of container %s: %w", c.ID.Short(), err)
	}
	answer, body, err := conn.Receive()
	if err != nil {
		conn.Close()
		return nil, 0, nil, fmt.Errorf("hearing the shim of container %s: %w", c.ID.Short(), err)
	}
	return conn, answer, body, nil
}

// control is a resize or a signal.
func (r *Runtime) control(c Container, kind launch.Request, m launch.Control) error {
	conn, answer, body, err := r.ask(c, kind, launch.Encode(&m))
	if err != nil {
		return err
	}
	conn.Close()
	if answer == launch.OK {
		return nil
	}
	var status launch.Status
	if err := launch.Decode(body, &status); err != nil {
		return fmt.Errorf("hearing the shim of container %s: %w", c.ID.Short(), err)
	}
	return errors.New(status.Text)
}
