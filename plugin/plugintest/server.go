package plugintest

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Handler serves a plugin's calls: handlers of go-plugins-helpers do.
type Handler interface {
	Serve(l net.Listener) error
}

// HTTP makes a Handler of a plain one, for plugins that do not behave.
type HTTP struct{ http.Handler }

// Serve serves until the listener is closed.
func (h HTTP) Serve(l net.Listener) error { return (&http.Server{Handler: h.Handler}).Serve(l) } //nolint:gosec // a test's

// Server is a plugin that listens.
type Server struct {
	listener *tracker
	stopping chan struct{}
	once     sync.Once
	done     chan struct{}
}

// Serve has a plugin listen on a unix socket until Stop, or the end of the test.
func Serve(tb testing.TB, socket string, h Handler) *Server {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		tb.Fatal(err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{listener: &tracker{Listener: listener, open: make(map[net.Conn]bool)}, stopping: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		h.Serve(s.listener) //nolint:errcheck // it ends when the listener is closed
	}()
	tb.Cleanup(s.Stop)
	return s
}

// Stop ends the plugin as kill does: the socket and all connections are gone.
func (s *Server) Stop() {
	s.listener.hangUp()
	s.once.Do(func() { close(s.stopping) })
	<-s.done
}

// Stopping is closed when the plugin can no longer answer: a call that waits for
// it dies in the middle.
func (s *Server) Stopping() <-chan struct{} { return s.stopping }

// tracker knows its connections.
type tracker struct {
	net.Listener
	mu   sync.Mutex
	open map[net.Conn]bool
}

// Accept notes the connection.
func (t *tracker) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[conn] = true
	return &tracked{conn, t}, nil
}

func (t *tracker) hangUp() {
	t.Close() //nolint:errcheck // it may be closed already
	t.mu.Lock()
	defer t.mu.Unlock()
	for conn := range t.open {
		conn.Close() //nolint:errcheck // as above
	}
}

type tracked struct {
	net.Conn
	tracker *tracker
}

// Close forgets the connection.
func (c *tracked) Close() error {
	c.tracker.mu.Lock()
	delete(c.tracker.open, c.Conn)
	c.tracker.mu.Unlock()
	return c.Conn.Close()
}

// Client returns a client that talks to a socket, with a connection for each
// call, and nothing else.
func Client(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}
