package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/term"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime"
)

const (
	// hangUpCheck is how often it is looked whether a client that has ended its
	// input is still there for the output.
	hangUpCheck = time.Second
	// headPatience is how long a client may take to read an answer's head.
	headPatience = 250 * time.Millisecond
	// lastWords is how long a client may take to close after its output ended.
	lastWords = time.Second
)

// attach turns the connection into the standard streams of a container.
func (s *Server) attach(w http.ResponseWriter, r *http.Request) error {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return err
	}
	keys, err := detachKeys(r.URL.Query().Get("detachKeys"))
	if err != nil {
		return err
	}
	want := runtime.AttachOptions{Stdin: boolean(r, "stdin"), Stdout: boolean(r, "stdout"), Stderr: boolean(r, "stderr"), Logs: boolean(r, "logs")}
	ctx, cancel := s.streaming(r)
	defer cancel()
	if want.Logs && !boolean(r, "stream") {
		return s.logOnce(ctx, w, r, c, want)
	}
	stream, err := s.containers.Attach(ctx, string(c.ID), want)
	if err != nil {
		return err
	}
	conn, input, err := s.hijack(w, r, c.Config.Tty)
	if err != nil {
		return errors.Join(err, stream.Close())
	}
	defer s.hijacked.remove(conn)
	if c.Config.Tty && want.Stdin {
		input = untilDetached(input, keys, func() {
			s.events.Container(runtime.Event{Action: "detach", ID: c.ID, Attributes: eventAttributes(c), Time: s.now()})
		})
	}
	// A client takes the end of the stream for the end of the run: whatever it
	// asks for next is to find the run's end seen to.
	s.join(conn, input, stream, func(ctx context.Context) {
		if run, err := s.containers.Waiter(string(c.ID), container.WaitConditionNotRunning); err == nil {
			run.Wait(ctx) //nolint:errcheck // it ends when there is nothing to wait for
		}
	})
	return nil
}

// logOnce is an attachment to the past only.
func (s *Server) logOnce(ctx context.Context, w http.ResponseWriter, r *http.Request, c runtime.Container, want runtime.AttachOptions) error {
	conn, _, err := s.hijack(w, r, c.Config.Tty)
	if err != nil {
		return err
	}
	defer s.hijacked.remove(conn)
	awaitRead(conn)
	if err := s.containers.Logs(ctx, string(c.ID), runtime.LogOptions{Stdout: want.Stdout, Stderr: want.Stderr, Tail: -1}, conn); err != nil {
		s.logf("attaching to the log of container %s: %v", c.Name, err)
	}
	return nil
}

// detachKeys reads a sequence such as ctrl-p,ctrl-q, which is the default.
func detachKeys(text string) ([]byte, error) {
	if text == "" {
		return []byte{16, 17}, nil
	}
	keys, err := term.ToBytes(text)
	if err != nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "Invalid detach keys (%s) provided", text)
	}
	return keys, nil
}

// hijack takes the connection from the HTTP server and tells the client that
// it is a stream from now on. The caller gives it back to s.hijacked.remove.
// The error http.ErrAbortHandler means that there is no one left to answer.
func (s *Server) hijack(w http.ResponseWriter, r *http.Request, tty bool) (net.Conn, io.Reader, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("taking over the connection: %w", err)
	}
	if !s.hijacked.add(conn) {
		return nil, nil, http.ErrAbortHandler
	}
	kind := types.MediaTypeRawStream
	if !tty && versionOf(r) >= 42 {
		kind = types.MediaTypeMultiplexedStream
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\n\r\n"
	if r.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + kind + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
		for name, values := range w.Header() { // those that every answer bears
			head += name + ": " + strings.Join(values, ", ") + "\r\n"
		}
		head += "\r\n"
	}
	if _, err := io.WriteString(conn, head); err != nil {
		s.hijacked.remove(conn)
		return nil, nil, http.ErrAbortHandler
	}
	return conn, buffered.Reader, nil
}

// join copies both ways until the process's output ends, the client goes, or
// the user types the keys to detach. After the end of the output it calls last,
// whose context is done when the client goes.
func (s *Server) join(conn net.Conn, input io.Reader, stream runtime.Stream, last func(context.Context)) {
	ctx, leave := context.WithCancel(s.closing)
	defer leave()
	over, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		if err := feed(stream, input); err == nil {
			waitHangUp(conn, over)
		}
		leave()
		select {
		case <-over:
		default:
			stream.Close() //nolint:errcheck // the client is gone or has detached
		}
	}()
	awaitRead(conn)
	io.Copy(conn, stream) //nolint:errcheck // whichever side has gone, it is over
	last(ctx)
	close(over)
	stream.Close() //nolint:errcheck // it may be closed already
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() //nolint:errcheck // the client may be gone
	}
	// A socket that is closed with input unread resets the connection, and the
	// client would take that for an error: let it close first.
	conn.SetReadDeadline(time.Now().Add(lastWords)) //nolint:errcheck // then the read ends at once
	<-drained
}

// awaitRead gives a client the time to take the answer's head in by itself.
// docker-py reads heads through a buffer that it then forgets, with all output
// that was in it: a process that is quick would seem to say nothing. The kernel
// counts what a unix socket's other end has not read yet.
func awaitRead(conn net.Conn) {
	owner, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	raw, err := owner.SyscallConn()
	if err != nil {
		return
	}
	deadline := time.Now().Add(headPatience)
	for pause := 20 * time.Microsecond; time.Now().Before(deadline); pause = min(2*pause, time.Millisecond) {
		unread := 0
		var failed error
		err := raw.Control(func(fd uintptr) { unread, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if errors.Join(err, failed) != nil || unread == 0 {
			return
		}
		time.Sleep(pause)
	}
}

// feed gives a process its input and then the end of it. An error means that
// the client has gone, or has typed the keys to detach. A process that takes
// no more input is none: its output goes on.
func feed(stream runtime.Stream, input io.Reader) error {
	client := &failing{Reader: input}
	if _, err := io.Copy(stream, client); err != nil && client.err == nil {
		io.Copy(io.Discard, client) //nolint:errcheck // client.err has it
	}
	if client.err != nil {
		return client.err
	}
	stream.CloseWrite() //nolint:errcheck // a process that has ended reads nothing
	return nil
}

// untilDetached is input that ends where the user types the keys to detach, which is
// told.
func untilDetached(input io.Reader, keys []byte, tell func()) io.Reader {
	return &detachable{term.NewEscapeProxy(input, keys), sync.OnceFunc(tell)}
}

type detachable struct {
	io.Reader
	tell func()
}

func (d *detachable) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if errors.As(err, new(term.EscapeError)) {
		d.tell()
	}
	return n, err
}

// failing remembers why its Reader failed.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// waitHangUp returns when the client has closed its end altogether. One that
// has only said that there is no more input is still there.
func waitHangUp(conn net.Conn, over <-chan struct{}) {
	ticker := time.NewTicker(hangUpCheck)
	defer ticker.Stop()
	for {
		select {
		case <-over:
			return
		case <-ticker.C:
			if hungUp(conn) {
				return
			}
		}
	}
}

func hungUp(conn net.Conn) bool {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	owner, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := owner.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, failed := unix.Poll(poll, 0)
		gone = failed == nil && n > 0 && poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}

// logs streams what a container has written, and with follow what it writes.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	o, err := s.logOptions(r)
	if err != nil {
		return err
	}
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return err
	}
	ctx, cancel := s.streaming(r)
	defer cancel()
	kind := types.MediaTypeRawStream
	if !c.Config.Tty && versionOf(r) >= 42 {
		kind = types.MediaTypeMultiplexedStream
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	out := io.Writer(w)
	if o.Follow {
		control := http.NewResponseController(w)
		if control.Flush() != nil {
			return nil
		}
		out = flushing{w, control}
	}
	if err := s.containers.Logs(ctx, string(c.ID), o, out); err != nil && ctx.Err() == nil {
		s.logf("reading the log of container %s: %v", c.Name, err)
		panic(http.ErrAbortHandler) // so that the client does not take the beginning for all
	}
	return nil
}

func (s *Server) logOptions(r *http.Request) (runtime.LogOptions, error) {
	o := runtime.LogOptions{Stdout: boolean(r, "stdout"), Stderr: boolean(r, "stderr"), Follow: boolean(r, "follow"), Timestamps: boolean(r, "timestamps"), Details: boolean(r, "details"), Tail: -1}
	if !o.Stdout && !o.Stderr {
		return o, linkspan.Errorf(linkspan.ErrInvalid, "Bad parameters: you must specify at least one of 'stdout' or 'stderr'")
	}
	now := s.now()
	var err error
	if o.Since, err = logTime(r, "since", now); err != nil {
		return o, err
	}
	if o.Until, err = logTime(r, "until", now); err != nil {
		return o, err
	}
	// Docker's clients send all; anything that is no number means it.
	if n, err := strconv.Atoi(r.URL.Query().Get("tail")); err == nil {
		o.Tail = n
	}
	return o, nil
}

// logTime reads a bound; 0 is none.
func logTime(r *http.Request, name string, now time.Time) (time.Time, error) {
	if r.URL.Query().Get(name) == "0" {
		return time.Time{}, nil
	}
	return timeParam(r, name, now)
}

// flushing sends each write at once.
type flushing struct {
	w       io.Writer
	control *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

// cause is why text is no number, without the name of the function that says so.
func cause(err error) error {
	if number := (*strconv.NumError)(nil); errors.As(err, &number) {
		return number.Err
	}
	return err
}

// terminalSize reads the h and w of a resize.
func terminalSize(r *http.Request) (height, width int, err error) {
	for _, side := range []struct {
		key, name string
		size      *int
	}{{"h", "height", &height}, {"w", "width", &width}} {
		text := r.URL.Query().Get(side.key)
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil && (n < 0 || n > math.MaxUint32) {
			err = strconv.ErrRange
		}
		if err != nil {
			return 0, 0, linkspan.Errorf(linkspan.ErrInvalid, "invalid resize %s %q: %w", side.name, text, cause(err))
		}
		*side.size = int(n)
	}
	return height, width, nil
}

func (s *Server) resizeContainer(w http.ResponseWriter, r *http.Request) error {
	height, width, err := terminalSize(r)
	if err != nil {
		return err
	}
	if err := s.containers.Resize(r.Context(), variable(r, "name"), height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
