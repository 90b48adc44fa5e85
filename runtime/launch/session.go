package launch

import (
	"encoding/binary"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	bufferSize = 16 << 10
	// lastWords is how long a client may take for what was written before the
	// exit; inherited is how long we wait for the children of an exec'ed process
	// that have its streams. PID 1 leaves no children.
	lastWords  = 10 * time.Second
	inherited  = 2 * time.Second
	streamOut  = 1
	streamErr  = 2
	frameBytes = 8
)

// session is one process with its streams and the clients that watch it.
type session struct {
	once   bool
	tty    bool
	done   chan struct{} // closed when status is final
	reaped func()        // called between the end and the wait for the output; nil: nothing to do

	pidMu  sync.Mutex // held while signalling, so that a pid is never one that was reaped
	pid    int        // 0 before the start and after the exit
	status Status     // valid once done is closed

	streams stdio // set before the session is seen by anyone else
	pumps   sync.WaitGroup
	stdinMu sync.Mutex // guards the closing of stdin

	outputMu sync.Mutex // held while a chunk goes out: the order is the same for all
	log      *log
	clients  []*client

	connsMu sync.Mutex // guards conns apart, so that the exit can hurry a writer
	conns   []*Conn
	ended   bool
}

type client struct {
	conn *Conn
	want Attach
}

func newSession(p *Process, l *log) *session {
	s := &session{once: p.StdinOnce, tty: p.Tty, done: make(chan struct{}), log: l}
	s.streams.theirs = [3]int{-1, -1, -1} // zero would be a descriptor of the shim's own
	return s
}

// attach adds a client. With ack it is told where the log stands.
func (s *session) attach(conn *Conn, want Attach, ack bool) {
	s.connsMu.Lock()
	s.conns = append(s.conns, conn)
	if s.ended {
		conn.CloseWrite()
	}
	s.connsMu.Unlock()
	s.outputMu.Lock()
	if ack {
		var offset int64
		if s.log != nil {
			offset = s.log.size
		}
		if conn.Send(OK, Encode(&Ack{Offset: offset})) != nil {
			s.outputMu.Unlock()
			conn.Close()
			return
		}
	}
	s.clients = append(s.clients, &client{conn, want})
	s.outputMu.Unlock()
	go s.feed(conn, want.Stdin)
}

// feed copies a client's input to the process, and notices when it goes away.
func (s *session) feed(conn *Conn, stdin bool) {
	buf := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 && stdin {
			if in := s.input(); in != nil {
				in.Write(buf[:n]) // a process that reads no more is none of the client's business
			}
		}
		if err != nil || n == 0 {
			break
		}
	}
	if stdin && s.once && !s.tty {
		s.closeStdin()
	}
	// The client may have ended only its own direction.
	conn.raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		return err != nil && err != unix.EINTR || n > 0 && poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	s.drop(conn)
}

func (s *session) input() *os.File {
	if s.tty {
		return s.streams.stdout
	}
	s.stdinMu.Lock()
	defer s.stdinMu.Unlock()
	return s.streams.stdin
}

func (s *session) closeStdin() {
	s.stdinMu.Lock()
	defer s.stdinMu.Unlock()
	if s.streams.stdin != nil {
		s.streams.stdin.Close()
		s.streams.stdin = nil
	}
}

func (s *session) drop(conn *Conn) {
	conn.Close()
	s.outputMu.Lock()
	defer s.outputMu.Unlock()
	for i, c := range s.clients {
		if c.conn == conn {
			s.clients = append(s.clients[:i], s.clients[i+1:]...)
			break
		}
	}
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	for i, c := range s.conns {
		if c == conn {
			s.conns = append(s.conns[:i], s.conns[i+1:]...)
			break
		}
	}
}

// pump moves one output stream until its end.
func (s *session) pump(stream int, file *os.File) {
	defer s.pumps.Done()
	buf := make([]byte, frameBytes+bufferSize)
	buf[0] = byte(stream)
	for {
		n, err := file.Read(buf[frameBytes:])
		if n > 0 {
			binary.BigEndian.PutUint32(buf[4:], uint32(n))
			s.emit(stream, buf[:frameBytes+n])
		}
		if err != nil { // a terminal whose last user is gone gives EIO
			break
		}
	}
	s.outputMu.Lock()
	defer s.outputMu.Unlock()
	if s.log != nil {
		s.log.end(stream)
	}
}

// emit logs a chunk and gives it to the clients. One that does not read holds
// everything up, the process included; one that is gone is forgotten by feed.
func (s *session) emit(stream int, framed []byte) {
	s.outputMu.Lock()
	defer s.outputMu.Unlock()
	payload := framed[frameBytes:]
	if s.log != nil {
		s.log.write(stream, payload)
	}
	if s.tty {
		framed = payload
	}
	for _, c := range s.clients {
		if stream == streamOut && c.want.Stdout || stream == streamErr && c.want.Stderr {
			c.conn.Write(framed)
		}
	}
}

// run is called once the process exists: it moves output, reaps, and returns
// when there is nothing more to come. The status goes through keep before
// anyone can learn of the end.
func (s *session) run(started Status, patience time.Duration, keep func(Status)) {
	s.pumps.Add(1)
	go s.pump(streamOut, s.streams.stdout)
	if s.streams.stderr != nil {
		s.pumps.Add(1)
		go s.pump(streamErr, s.streams.stderr)
	}
	code := s.reap(started.Pid)
	at := time.Now().UnixNano()
	if s.reaped != nil {
		s.reaped()
	}
	s.drain(patience)
	s.status = Status{Pid: started.Pid, Code: code, At: at}
	keep(s.status)
	s.hangUp()
	close(s.done)
}

// reap waits without reaping first: as long as the zombie is there, its number
// cannot be another process's.
func (s *session) reap(pid int) int {
	for {
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			break
		}
	}
	s.pidMu.Lock()
	defer s.pidMu.Unlock()
	s.pid = 0
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return 255
		}
	}
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// drain waits for the pumps, but neither for ever on a client that does not
// read nor on a stranger that was handed our pipe.
func (s *session) drain(patience time.Duration) {
	s.connsMu.Lock()
	for _, conn := range s.conns {
		conn.file.SetWriteDeadline(time.Now().Add(lastWords))
	}
	s.connsMu.Unlock()
	for _, file := range []*os.File{s.streams.stdout, s.streams.stderr} {
		if file != nil {
			file.SetReadDeadline(time.Now().Add(patience))
		}
	}
	s.pumps.Wait()
	s.closeStdin()
	s.streams.closeOurs()
}

// hangUp ends the streams of all clients.
func (s *session) hangUp() {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	for _, conn := range s.conns {
		conn.CloseWrite()
	}
	s.ended = true
}

// signal sends to the process if it has not been reaped.
func (s *session) signal(number int) error {
	s.pidMu.Lock()
	defer s.pidMu.Unlock()
	if s.pid == 0 {
		return unix.ESRCH
	}
	return unix.Kill(s.pid, unix.Signal(number))
}

func (s *session) resize(rows, cols int) error {
	if !s.tty || s.streams.stdout == nil {
		return nil // Docker's clients tell any container of their window
	}
	raw, err := s.streams.stdout.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	size := &unix.Winsize{Row: uint16(rows), Col: uint16(cols)}
	if err := raw.Control(func(fd uintptr) { set = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) }); err != nil {
		return err
	}
	return set
}
