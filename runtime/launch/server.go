package launch

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quiet is how long a container must live for its shim to give back the memory
// that the start took.
const quiet = 300 * time.Millisecond

// shim serves one container.
type shim struct {
	listener *os.File
	spec     Spec
	ports    ports // of the host, held for the container
	main     *session

	mu       sync.Mutex
	kept     []int               // held for the container's life, never used
	sessions map[string]*session // further processes, by ID
	waiters  sync.WaitGroup      // replies about the exit that are still to be sent
}

// Serve is the shim's whole life. The descriptor is a listening unix
// socket. It returns when the container has ended and everyone who was
// connected knows.
func Serve(listening int) error {
	// Nobody may look into the shim, or follow its /proc entries, from a
	// process that it brings into a container.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	name := append([]byte("linkspan-shim"), 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return err
	}
	// A closed terminal or socket is no reason to leave the container alone.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGPIPE, unix.SIGINT, unix.SIGTERM)
	// What a daemon hands over may have lost this on the way.
	if err := unix.SetNonblock(listening, true); err != nil {
		return err
	}
	s := &shim{listener: os.NewFile(uintptr(listening), "listener"), sessions: map[string]*session{}}
	conn, err := s.accept()
	if err != nil {
		return err
	}
	kind, payload, err := conn.Receive()
	if err != nil || kind != ReqLaunch {
		return errors.New("the first request was not a launch")
	}
	started, ok := s.launch(conn, payload)
	if !ok {
		return nil
	}
	s.waiters.Add(1)
	go s.answerExit(conn, s.main)
	go s.serve()
	timer := time.AfterFunc(quiet, shrink)
	defer timer.Stop()
	s.main.run(started, lastWords, s.record)
	s.finish()
	return nil
}

// finish lets the ends of the other processes, which the kernel killed with
// PID 1, and the replies go out.
func (s *shim) finish() {
	s.mu.Lock()
	sessions := make([]*session, 0, len(s.sessions))
	for _, other := range s.sessions {
		sessions = append(sessions, other)
	}
	s.mu.Unlock()
	limit := time.After(lastWords)
	for _, other := range sessions {
		select {
		case <-other.done:
		case <-limit:
		}
	}
	s.waiters.Wait()
}

func (s *shim) accept() (*Conn, error) {
	raw, err := s.listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, got := -1, error(nil)
	err = raw.Read(func(l uintptr) bool {
		fd, _, got = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		again := errors.Is(got, unix.EAGAIN) || errors.Is(got, unix.EINTR) || errors.Is(got, unix.ECONNABORTED)
		return !again
	})
	if err = errors.Join(err, got); err != nil {
		return nil, err
	}
	return NewConn(fd)
}

func (s *shim) serve() {
	for {
		conn, err := s.accept()
		if err != nil {
			return
		}
		go s.handle(conn)
	}
}

// launch starts the container and says how that went.
func (s *shim) launch(conn *Conn, payload []byte) (Status, bool) {
	err := Decode(payload, &s.spec)
	fds := conn.TakeFiles()
	n, m := len(s.spec.Attached), len(s.spec.Attached)+s.spec.Keep
	if err == nil && (s.spec.Keep < 0 || len(fds) < m) {
		err = errors.New("descriptors are missing")
	}
	if err == nil {
		err = s.ports.hold(&Hold{Wanted: s.spec.Ports, Fresh: s.spec.Ports}, fds[m:])
	}
	var l *log
	if err == nil && s.spec.Log.Path != "" {
		l, err = openLog(s.spec.Log)
	}
	if err != nil {
		s.record(s.fail(conn, err))
		return Status{}, false
	}
	s.main = newSession(&s.spec.Process, l)
	if !s.spec.Pid.own() {
		s.main.reaped = func() { killAll(s.spec.Cgroups) }
	}
	s.mu.Lock()
	s.kept = fds[n:m]
	s.mu.Unlock()
	started, err := s.start(s.main, s.spec.Attached, fds[:n], func(io *stdio) (int, error) { return startContainer(&s.spec, io) })
	if err != nil {
		s.record(s.fail(conn, err))
		return Status{}, false
	}
	if conn.Send(Started, Encode(&started)) != nil {
		conn.Close() // the daemon is gone; its successor will ask
	}
	return started, true
}

// start runs f on a thread of its own and fills in the session.
func (s *shim) start(ses *session, attached []Attach, fds []int, f func(*stdio) (int, error)) (Status, error) {
	var started Status
	err := onThread(func() error {
		pid, err := f(&ses.streams)
		ses.streams.closeTheirs()
		started = Status{Pid: pid, At: time.Now().UnixNano()}
		return err
	})
	if err != nil {
		ses.streams.closeOurs()
		for _, fd := range fds {
			unix.Close(fd)
		}
		return started, err
	}
	ses.pid = started.Pid
	for i, fd := range fds {
		conn, err := NewConn(fd)
		if err != nil {
			continue
		}
		ses.attach(conn, attached[i], false)
	}
	return started, nil
}

func (s *shim) fail(conn *Conn, err error) Status {
	status := Status{Code: 128, Text: err.Error(), At: time.Now().UnixNano()}
	if e := (*startError)(nil); errors.As(err, &e) {
		status.Code = e.code
	}
	conn.Send(Failed, Encode(&status))
	return status
}

// record keeps the status for a daemon that is not there to hear it. The ports
// are free before anybody can learn of the end.
func (s *shim) record(status Status) {
	s.ports.release()
	if s.spec.Dir == "" {
		return
	}
	name := s.spec.Dir + "/" + ExitFile
	if os.WriteFile(name+".new", Encode(&status), 0o600) == nil {
		os.Rename(name+".new", name)
	}
}

// ExitFile is the name, in the container's directory of the exec-root, of the
// file that holds the Status of the end.
const ExitFile = "exit"

// handle serves one connection.
func (s *shim) handle(conn *Conn) {
	kind, payload, err := conn.Receive()
	if err != nil {
		conn.Close()
		return
	}
	switch kind {
	case ReqWait:
		started := Status{Pid: s.main.pidNow()}
		if conn.Send(Started, Encode(&started)) == nil {
			s.waiters.Add(1)
			s.answerExit(conn, s.main)
			return
		}
	case ReqAttach:
		var want Attach
		if Decode(payload, &want) == nil {
			if ses := s.find(want.Session); ses != nil {
				ses.attach(conn, want, true)
				return
			}
		}
		conn.Send(Failed, Encode(&Status{Code: 128, Text: "no such session"}))
	case ReqExec:
		s.exec(conn, payload)
		return
	case ReqResize, ReqSignal:
		s.control(conn, kind, payload)
	case ReqHold:
		s.hold(conn, payload)
	case ReqHeld:
		held := s.ports.list()
		conn.Send(Held, Encode(&held))
	case ReqKept:
		s.mu.Lock()
		err = conn.SendFiles(s.kept)
		s.mu.Unlock()
		if err == nil {
			conn.Send(OK, Encode(&Ack{}))
		}
	case ReqKeep:
		fresh := conn.TakeFiles()
		s.mu.Lock()
		s.kept, fresh = fresh, s.kept
		s.mu.Unlock()
		closeAll(fresh)
		conn.Send(OK, Encode(&Ack{}))
	}
	conn.Close()
}

func (s *shim) control(conn *Conn, kind Request, payload []byte) {
	var m Control
	err := Decode(payload, &m)
	if err == nil {
		switch ses := s.find(m.Session); {
		case ses == nil:
			err = errors.New("no such session")
		case kind == ReqResize:
			err = ses.resize(m.A, m.B)
		default:
			err = ses.signal(m.A)
		}
	}
	if err != nil {
		conn.Send(Failed, Encode(&Status{Code: 128, Text: err.Error()}))
		return
	}
	conn.Send(OK, Encode(&Ack{}))
}

func (s *shim) find(id string) *session {
	if id == "" {
		return s.main
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id]
}

// exec starts a further process and stays with it.
func (s *shim) exec(conn *Conn, payload []byte) {
	var e Exec
	err := Decode(payload, &e)
	fds := conn.TakeFiles()
	if err == nil && (len(fds) != len(e.Attached) || e.ID == "") {
		err = errors.New("malformed exec")
	}
	if err != nil {
		s.fail(conn, err)
		conn.Close()
		return
	}
	ses := newSession(&e.Process, nil)
	started, err := s.start(ses, e.Attached, fds, func(io *stdio) (int, error) {
		return startExec(&s.spec, &e.Process, s.main.pidNow(), io)
	})
	if err != nil {
		s.fail(conn, err)
		conn.Close()
		return
	}
	s.mu.Lock()
	s.sessions[e.ID] = ses
	s.mu.Unlock()
	if conn.Send(Started, Encode(&started)) == nil {
		s.waiters.Add(1)
		go s.answerExit(conn, ses)
	}
	ses.run(started, inherited, func(Status) {})
	s.mu.Lock()
	delete(s.sessions, e.ID)
	s.mu.Unlock()
}

// answerExit tells one client of the end.
func (s *shim) answerExit(conn *Conn, ses *session) {
	defer s.waiters.Done()
	<-ses.done
	conn.Send(Exited, Encode(&ses.status))
	conn.Close()
}

func (s *session) pidNow() int {
	s.pidMu.Lock()
	defer s.pidMu.Unlock()
	return s.pid
}
