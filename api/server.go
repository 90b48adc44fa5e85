package api

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/common"
)

// Options are what a Server works with. All fields must be set.
type Options struct {
	Networks   Networking // *controller.Controller
	Containers Containers // *runtime.Runtime
	Images     Images     // *image.Store
	Volumes    Volumes    // *volume.Store
	Events     *Events    // the one that Networks and Containers report to
	Plugins    Plugins    // nil: none
	History    *History   // the one that Networks reports to; nil: an empty one
	About      About
	Logf       func(format string, args ...any)
}

// Server answers requests. It is an http.Handler, safe for concurrent use.
type Server struct {
	networks   Networking
	containers Containers
	images     Images
	volumes    Volumes
	events     *Events
	history    *History
	own        Plugins
	about      About
	logf       func(format string, args ...any)
	now        func() time.Time
	patience   time.Duration // with a watcher that does not read

	handler http.Handler
	http    http.Server

	closing  context.Context // done when streams must end
	close    context.CancelFunc
	hijacked hijacked
	steppers steppers

	pruningNetworks, pruningContainers atomic.Bool
}

// New returns a Server. Give Serve the sockets it is to answer on.
func New(o Options) *Server {
	s := &Server{
		networks: o.Networks, containers: o.Containers, images: o.Images, volumes: o.Volumes, events: o.Events, about: o.About.filled(), logf: o.Logf, now: time.Now, patience: 30 * time.Second,
		hijacked: hijacked{open: make(map[net.Conn]struct{})},
		history:  cmp.Or(o.History, NewHistory()),
		own:      o.Plugins,
	}
	s.closing, s.close = context.WithCancel(context.Background())
	s.handler = s.recovered(s.negotiate(s.router()))
	s.http.Handler = s
	s.http.ErrorLog = log.New(logWriter(s.logf), "", 0)
	// A client that sends its header byte by byte holds a connection no longer
	// than this; one that is silent between requests, not longer than that.
	s.http.ReadHeaderTimeout, s.http.IdleTimeout = 10*time.Second, 5*time.Minute
	return s
}

// logWriter lets the HTTP server complain where everybody does.
type logWriter func(format string, args ...any)

func (f logWriter) Write(p []byte) (int, error) {
	f("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Serve answers on a socket until Shutdown, and returns nil then. It may be
// called for several sockets.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown ends the streams, waits for the verbs under way until ctx ends, and
// closes the sockets. Containers go on.
func (s *Server) Shutdown(ctx context.Context) error {
	s.close()
	s.hijacked.closeAll()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	return errors.Join(err, s.hijacked.wait(ctx))
}

// streaming returns the context of an answer without end: it is done when the
// client goes or the server shuts down.
func (s *Server) streaming(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(s.closing, cancel)
	return ctx, func() { stop(); cancel() }
}

// acting returns the context of a verb that is not given up because its client
// has gone: a stop that was asked for happens.
func acting(r *http.Request) context.Context { return context.WithoutCancel(r.Context()) }

// recovered answers 500 where a handler panics: one bad request must not take
// the daemon, and all other clients' requests, along.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watched := &headerWatch{ResponseWriter: w}
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if err, ok := reason.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(reason)
			}
			s.logf("%s %s: panic: %v\n%s", r.Method, r.URL.Path, reason, debug.Stack())
			if !watched.sent {
				writeJSON(watched, http.StatusInternalServerError, common.ErrorResponse{Message: "internal error: see the daemon's log"})
			}
		}()
		next.ServeHTTP(watched, r)
	})
}

// headerWatch remembers whether an answer has begun.
type headerWatch struct {
	http.ResponseWriter
	sent bool
}

func (w *headerWatch) WriteHeader(status int) {
	w.sent = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *headerWatch) Write(p []byte) (int, error) {
	w.sent = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *headerWatch) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack counts as an answer: what follows on the connection is no HTTP.
func (w *headerWatch) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.sent = true
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// hijacked are the connections that no longer belong to the HTTP server.
type hijacked struct {
	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
	users  sync.WaitGroup
}

// add registers a connection, or closes it when it is too late.
func (h *hijacked) add(conn net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		conn.Close() //nolint:errcheck // nobody uses it
		return false
	}
	h.open[conn] = struct{}{}
	h.users.Add(1)
	return true
}

func (h *hijacked) remove(conn net.Conn) {
	h.mu.Lock()
	delete(h.open, conn)
	h.mu.Unlock()
	conn.Close() //nolint:errcheck // all that mattered is written
	h.users.Done()
}

func (h *hijacked) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for conn := range h.open {
		conn.Close() //nolint:errcheck // its user notices
	}
}

func (h *hijacked) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { h.users.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
