package api

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime"
)

func (s *Server) createExec(w http.ResponseWriter, r *http.Request) error {
	var request container.ExecCreateRequest
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	if len(request.Cmd) == 0 {
		return linkspan.Errorf(linkspan.ErrInvalid, "No exec command specified")
	}
	if _, err := detachKeys(request.DetachKeys); err != nil {
		return err
	}
	if versionOf(r) < 42 {
		request.ConsoleSize = nil
	}
	id, err := s.containers.ExecCreate(r.Context(), variable(r, "name"), request)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, common.IDResponse{ID: id})
	return nil
}

// startExec runs a process and turns the connection into its streams. The
// client has learnt that before the process starts, so it reads why it did
// not from the stream, and the exit code from the exec's inspection.
func (s *Server) startExec(w http.ResponseWriter, r *http.Request) error {
	var request container.ExecStartRequest
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	id := variable(r, "id")
	exec, err := s.containers.ExecInspect(id)
	if err != nil {
		return err
	}
	if exec.Running || exec.ExitCode != nil {
		return linkspan.Errorf(linkspan.ErrConflict, "exec command %s has already run", id)
	}
	if versionOf(r) < 42 {
		request.ConsoleSize = nil
	}
	if request.Detach {
		if _, err := s.containers.ExecStart(r.Context(), id, request); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	keys, err := detachKeys(exec.Request.DetachKeys)
	if err != nil {
		return err
	}
	conn, input, err := s.hijack(w, r, request.Tty)
	if err != nil {
		return err
	}
	defer s.hijacked.remove(conn)
	stream, err := s.containers.ExecStart(r.Context(), id, request)
	if err != nil {
		writeFailure(conn, err, request.Tty)
		return nil
	}
	if exec.Request.Tty && exec.Request.AttachStdin {
		input = untilDetached(input, keys, func() { s.leftExec(exec) })
	}
	// The client asks for the exit code as soon as the stream has ended, and
	// takes none for 0. A process may end later than its output.
	s.join(conn, input, framed(stream, exec.Request.Tty, request.Tty), func(ctx context.Context) {
		s.containers.ExecWait(ctx, id) //nolint:errcheck // it ends when there is nothing to wait for
	})
	return nil
}

// leftExec tells that a client has detached from a process.
func (s *Server) leftExec(exec runtime.Exec) {
	if c, err := s.containers.Get(string(exec.Container)); err == nil {
		attributes := eventAttributes(c)
		attributes["execID"] = exec.ID
		s.events.Container(runtime.Event{Action: "exec_detach", ID: c.ID, Attributes: attributes, Time: s.now()})
	}
}

// framed turns the output of a process into what the client expects: it says
// at the start whether it reads a terminal's bytes or frames (API, ContainerAttach),
// and that need not be what the process was created with.
func framed(stream runtime.Stream, terminal, wanted bool) runtime.Stream {
	switch {
	case terminal == wanted:
		return stream
	case terminal:
		return reframed{stream, func(w io.Writer) (int64, error) {
			return io.Copy(stdcopyWriter{w}, struct{ io.Reader }{stream})
		}}
	}
	return reframed{stream, func(w io.Writer) (int64, error) { return stdcopy.StdCopy(w, w, stream) }}
}

// reframed is a stream whose output is changed on its way.
type reframed struct {
	runtime.Stream
	copyTo func(io.Writer) (int64, error)
}

// WriteTo is what io.Copy uses.
func (s reframed) WriteTo(w io.Writer) (int64, error) { return s.copyTo(w) }

// stdcopyWriter makes a frame of standard output of each write.
type stdcopyWriter struct{ w io.Writer }

func (s stdcopyWriter) Write(p []byte) (int, error) {
	if _, err := s.w.Write(frame(stdcopy.Stdout, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// frame puts the head of a multiplexed stream before some bytes of it.
func frame(kind stdcopy.StdType, p []byte) []byte {
	head := []byte{byte(kind), 0, 0, 0}
	return append(binary.BigEndian.AppendUint32(head, uint32(len(p))), p...)
}

// writeFailure tells on the stream why nothing runs.
func writeFailure(w io.Writer, err error, tty bool) {
	text := []byte(err.Error() + "\r\n")
	if !tty {
		text = frame(stdcopy.Stdout, text)
	}
	w.Write(text) //nolint:errcheck // a client that has gone wants to know nothing
}

func (s *Server) inspectExec(w http.ResponseWriter, r *http.Request) error {
	exec, err := s.containers.ExecInspect(variable(r, "id"))
	if err != nil {
		return err
	}
	q := exec.Request
	process := &container.ExecProcessConfig{Tty: q.Tty, User: q.User, Privileged: &q.Privileged, Arguments: []string{}}
	if len(q.Cmd) > 0 {
		process.Entrypoint, process.Arguments = q.Cmd[0], q.Cmd[1:]
	}
	writeJSON(w, http.StatusOK, container.ExecInspectResponse{
		ID: exec.ID, Running: exec.Running, ExitCode: exec.ExitCode, ProcessConfig: process, OpenStdin: q.AttachStdin,
		OpenStdout: q.AttachStdout, OpenStderr: q.AttachStderr, ContainerID: string(exec.Container), DetachKeys: []byte(q.DetachKeys), Pid: exec.Pid,
	})
	return nil
}

func (s *Server) resizeExec(w http.ResponseWriter, r *http.Request) error {
	height, width, err := terminalSize(r)
	if err != nil {
		return err
	}
	if err := s.containers.ExecResize(r.Context(), variable(r, "id"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
