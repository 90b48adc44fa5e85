package api

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/runtime"
	"github.com/moby/moby/api/pkg/stdcopy"
)

// served runs a server on a socket, and returns how to connect to it.
func served(t *testing.T, s *Server) func() *net.UnixConn {
	t.Helper()
	listener, err := Listen(t.Context(), "unix://"+filepath.Join(t.TempDir(), "d.sock"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- s.Serve(listener) }()
	t.Cleanup(func() {
		if err := s.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func() *net.UnixConn {
		conn, err := net.Dial("unix", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		return conn.(*net.UnixConn)
	}
}

func TestAttachIsAConversation(t *testing.T) {
	for name, test := range map[string]struct {
		request, status, kind string
		tty                   bool
	}{
		"upgrade":     {"POST /v1.42/containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", "HTTP/1.1 101 UPGRADED", "application/vnd.docker.multiplexed-stream", false},
		"terminal":    {"POST /containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", "HTTP/1.1 101 UPGRADED", "application/vnd.docker.raw-stream", true},
		"old":         {"POST /v1.41/containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", "HTTP/1.1 101 UPGRADED", "application/vnd.docker.raw-stream", false},
		"not upgrade": {"POST /containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n", "HTTP/1.1 200 OK", "application/vnd.docker.raw-stream", false},
	} {
		t.Run(name, func(t *testing.T) {
			web := webContainer()
			web.Config.Tty = test.tty
			stream := newFakeStream("the answer")
			conn := served(t, newTestServer(t, &fakeNetworking{}, &fakeContainers{all: []record{web}, stream: stream}))()
			io.WriteString(conn, test.request+"the question") // input in the packet of the request is input
			reader := bufio.NewReader(conn)
			head := ""
			for !strings.HasSuffix(head, "\r\n\r\n") {
				line, err := reader.ReadString('\n')
				if err != nil {
					t.Fatalf("%q %v", head, err)
				}
				head += line
			}
			if !strings.HasPrefix(head, test.status+"\r\n") || !strings.Contains(head, "\r\nContent-Type: "+test.kind+"\r\n") {
				t.Errorf("head %q", head)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			output, err := io.ReadAll(reader)
			if err != nil || string(output) != "the answer" || stream.read() != "the question" {
				t.Errorf("%q %q %v", output, stream.read(), err)
			}
		})
	}
}

// ctrl-p ctrl-q leaves a container with a terminal alone; a client that hangs
// up, too.
func TestDetach(t *testing.T) {
	for name, leave := range map[string]func(*net.UnixConn){
		"keys":    func(c *net.UnixConn) { io.WriteString(c, "ls\x10\x11") },
		"hang up": func(c *net.UnixConn) { io.WriteString(c, "ls"); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			web := webContainer()
			web.Config.Tty = true
			stream := newFakeStream("")
			stream.output = nil // never asked for: the input does not end
			conn := served(t, newTestServer(t, &fakeNetworking{}, &fakeContainers{all: []record{web}, stream: stream}))()
			fmt.Fprint(conn, "POST /containers/web/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\n\r\n")
			head := make([]byte, 12)
			if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 101" {
				t.Fatalf("%q %v", head, err)
			}
			if name == "hang up" {
				stream.output = neverEnding{}
			}
			leave(conn)
			select {
			case <-stream.closed:
			case <-time.After(8 * time.Second):
				t.Fatal("the stream is still open")
			}
			if got := stream.read(); got != "ls" {
				t.Errorf("the process read %q", got)
			}
		})
	}
}

// neverEnding is output that does not come.
type neverEnding struct{}

func (neverEnding) Read([]byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return 0, nil
}

func TestExecFailureIsInTheStream(t *testing.T) {
	f := &fakeContainers{exec: runtime.Exec{ID: "x"}, refuse: linkspan.Errorf(linkspan.ErrInvalid, "no such program")}
	conn := served(t, newTestServer(t, &fakeNetworking{}, f))()
	const body = `{"Detach":false,"Tty":false}`
	fmt.Fprintf(conn, "POST /exec/x/start HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 101 UPGRADED\r\n") || !strings.HasSuffix(string(answer), "\r\n\r\n\x01\x00\x00\x00\x00\x00\x00\x11no such program\r\n") {
		t.Errorf("%q %v", answer, err)
	}
	code := 0
	f.exec.ExitCode = &code
	if got := statusAndMessage(t, ask(newTestServer(t, &fakeNetworking{}, f), "POST", "/exec/x/start", "{}")); got != "409 exec command x has already run" {
		t.Error(got)
	}
}

// The end of an exec's stream is the sign for the client to ask for the exit
// code: it must not come before there is one, even if the output ended earlier.
func TestExecStreamEndsWithItsProcess(t *testing.T) {
	stream := newFakeStream("all there is")
	stream.CloseWrite() // the process closes its output at once
	f := &fakeContainers{exec: runtime.Exec{ID: "x"}, stream: stream, execEnded: make(chan struct{})}
	conn := served(t, newTestServer(t, &fakeNetworking{}, f))()
	const body = `{"Detach":false,"Tty":false}`
	fmt.Fprintf(conn, "POST /exec/x/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	var got strings.Builder
	end := make(chan error, 1)
	go func() {
		_, err := io.Copy(&got, conn)
		end <- err
	}()
	select {
	case err := <-end:
		t.Fatalf("the stream ended before the process: %v, after %q", err, got.String())
	case <-time.After(200 * time.Millisecond):
	}
	close(f.execEnded)
	if err := <-end; err != nil || !strings.HasSuffix(got.String(), "all there is") {
		t.Errorf("%q %v", got.String(), err)
	}
}

// A client that watches events and does not read them is dropped.
func TestStuckWatcherIsDropped(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	s.patience = 50 * time.Millisecond
	conn := served(t, s)()
	fmt.Fprint(conn, "GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	big := map[string]string{"x": strings.Repeat("x", 1<<20)} // more than a socket holds
	if !nstest.Until(5*time.Second, func() bool { return s.events.watchers.Load() == 1 }) {
		t.Fatal("nobody watches")
	}
	s.events.Daemon("reload", "d", big)
	s.events.Daemon("reload", "d", big)
	if !nstest.Until(5*time.Second, func() bool { return s.events.watchers.Load() == 0 }) {
		t.Error("the watcher is still there")
	}
}

func TestLogsWantAStream(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{all: []record{webContainer()}})
	for path, want := range map[string]string{
		"/containers/web/logs":                   "400 Bad parameters: you must specify at least one of 'stdout' or 'stderr'",
		"/containers/web/logs?stdout=1&since=x":  `400 invalid value for "since": `,
		"/containers/nosuch/logs?stdout=1":       "404 No such container: nosuch",
		"/containers/nosuch/logs?stderr=1&tail=": "404 No such container: nosuch",
	} {
		if got := statusAndMessage(t, ask(s, "GET", path, "")); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	for path, want := range map[string]string{
		"/containers/web/resize?h=x&w=1":          `400 invalid resize height "x": invalid syntax`,
		"/containers/web/resize?h=-1&w=1":         `400 invalid resize height "-1": value out of range`,
		"/containers/web/resize?h=1&w=4294967296": `400 invalid resize width "4294967296": value out of range`,
		"/containers/web/resize?h=1":              `400 invalid resize width "": invalid syntax`,
		"/containers/web/attach?detachKeys=ctrl-": "400 Invalid detach keys (ctrl-) provided",
	} {
		if got := statusAndMessage(t, ask(s, "POST", path, "")); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
}

// said is the output of a process that has said it all.
type said struct{ io.Reader }

func (said) Write(p []byte) (int, error) { return len(p), nil }
func (said) Close() error                { return nil }
func (said) CloseWrite() error           { return nil }

// A client may start a process on a terminal and want frames, and the reverse.
func TestFramed(t *testing.T) {
	frames := string(frame(stdcopy.Stdout, []byte("out\n"))) + string(frame(stdcopy.Stderr, []byte("err\n")))
	for _, test := range []struct {
		name, output, want string
		terminal, wanted   bool
	}{
		{"terminal", "out\n", "out\n", true, true},
		{"frames", frames, frames, false, false},
		{"frames of a terminal", "out\n", string(frame(stdcopy.Stdout, []byte("out\n"))), true, false},
		{"bytes of frames", frames, "out\nerr\n", false, true},
	} {
		var got bytes.Buffer
		if _, err := io.Copy(&got, framed(said{strings.NewReader(test.output)}, test.terminal, test.wanted)); err != nil || got.String() != test.want {
			t.Errorf("%s: %q %v, want %q", test.name, got.String(), err, test.want)
		}
	}
}
