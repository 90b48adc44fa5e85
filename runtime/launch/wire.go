package launch

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Request is the type byte of a frame.
type Request byte

// The frames. A connection begins with one request of the daemon; the shim
// answers with OK, Started or Failed.
const (
	ReqLaunch Request = 'L' // Spec; answered by Started or Failed, later by Exited
	ReqExec   Request = 'E' // Exec; the same answers
	ReqWait   Request = 'W' // nothing; the same answers
	ReqAttach Request = 'A' // Attach; answered by OK, then the connection is the stream
	ReqResize Request = 'R' // Control; answered by OK or Failed
	ReqSignal Request = 'S' // Control; answered by OK or Failed
	ReqKept   Request = 'K' // nothing; answered by Files frames, then OK
	ReqKeep   Request = 'k' // Files frames, then Ack: to keep from now on; answered by OK
	ReqHold   Request = 'H' // Files frames, then Hold; answered by OK or Failed
	ReqHeld   Request = 'h' // nothing; answered by Held

	Files   Request = 'f' // carries descriptors as SCM_RIGHTS; the payload is their number
	OK      Request = 'o' // Ack
	Started Request = 's' // Status
	Failed  Request = 'x' // Status
	Exited  Request = 'e' // Status
	Held    Request = 'd' // Holding
)

const (
	maxFrame       = 16 << 20 // an environment of 2 MiB fits; a stray client cannot make us allocate more
	maxFilesAtOnce = 200      // the kernel takes 253 (SCM_MAX_FD) in one message
	headerSize     = 5
)

// Conn is one connection between daemon and shim. One goroutine may read and
// another write at the same time.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	got  []int // descriptors received with a Files frame and not yet taken
}

// NewConn takes over a connected, non-blocking unix stream socket.
func NewConn(fd int) (*Conn, error) {
	file := os.NewFile(uintptr(fd), "shim socket")
	if file == nil {
		return nil, os.ErrInvalid
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Conn{file: file, raw: raw}, nil
}

// Read, Write and Close make a Conn the stream that an attach leaves behind.
func (c *Conn) Read(p []byte) (int, error)  { return c.file.Read(p) }
func (c *Conn) Write(p []byte) (int, error) { return c.file.Write(p) }

// Close ends both directions.
func (c *Conn) Close() error { return c.file.Close() }

// CloseWrite ends our direction: the other side reads EOF, as for a terminal's
// Ctrl-D.
func (c *Conn) CloseWrite() error {
	var shut error
	if err := c.raw.Control(func(fd uintptr) { shut = unix.Shutdown(int(fd), unix.SHUT_WR) }); err != nil {
		return err
	}
	return shut
}

// Send writes one frame.
func (c *Conn) Send(kind Request, payload []byte) error {
	_, err := c.file.Write(frame(kind, payload))
	return err
}

// SendFiles writes as many Files frames as the descriptors need. They remain
// the caller's.
func (c *Conn) SendFiles(fds []int) error {
	for len(fds) > 0 {
		n := min(len(fds), maxFilesAtOnce)
		buf := frame(Files, binary.BigEndian.AppendUint32(nil, uint32(n)))
		var sent error
		err := c.raw.Write(func(fd uintptr) bool {
			sent = unix.Sendmsg(int(fd), buf, unix.UnixRights(fds[:n]...), nil, unix.MSG_NOSIGNAL)
			return sent != unix.EAGAIN
		})
		if err = errors.Join(err, sent); err != nil {
			return err
		}
		fds = fds[n:]
	}
	return nil
}

// Receive reads one frame that is not a Files frame; descriptors that came
// before it wait in TakeFiles.
func (c *Conn) Receive() (Request, []byte, error) {
	for {
		var header [headerSize]byte
		if err := c.readFull(header[:]); err != nil {
			return 0, nil, err
		}
		size := binary.BigEndian.Uint32(header[1:])
		if size > maxFrame {
			return 0, nil, errors.New("frame is too long")
		}
		payload := make([]byte, size)
		if err := c.readFull(payload); err != nil {
			return 0, nil, err
		}
		if Request(header[0]) != Files {
			return Request(header[0]), payload, nil
		}
	}
}

// TakeFiles returns the descriptors received so far; they become the caller's.
// They are bare numbers because an os.File would be watched by the runtime's
// poller, and a kept DNS socket would wake the shim at each packet.
func (c *Conn) TakeFiles() []int {
	fds := c.got
	c.got = nil
	return fds
}

func (c *Conn) readFull(p []byte) error {
	for len(p) > 0 {
		n, err := c.recvmsg(p)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.EOF
		}
		p = p[n:]
	}
	return nil
}

func (c *Conn) recvmsg(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(maxFilesAtOnce*4))
	var n, oobn int
	var got error
	err := c.raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, got = unix.Recvmsg(int(fd), p, oob, unix.MSG_CMSG_CLOEXEC)
		return got != unix.EAGAIN && got != unix.EINTR
	})
	if err = errors.Join(err, got); err != nil {
		return 0, err
	}
	if oobn == 0 {
		return n, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials, which nobody asked for
		}
		c.got = append(c.got, fds...)
	}
	return n, nil
}

func frame(kind Request, payload []byte) []byte {
	buf := make([]byte, headerSize, headerSize+len(payload))
	buf[0] = byte(kind)
	binary.BigEndian.PutUint32(buf[1:], uint32(len(payload)))
	return append(buf, payload...)
}

// coder writes or reads fields; each message lists its fields once, in a
// method that serves both ways, so the two sides cannot drift apart.
type coder struct {
	buf     []byte
	reading bool
	failed  bool
}

func (c *coder) take(n int) []byte {
	if n > len(c.buf) || n < 0 {
		c.failed = true
		return nil
	}
	p := c.buf[:n]
	c.buf = c.buf[n:]
	return p
}

func (c *coder) count(n int) int {
	if !c.reading {
		c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(n))
		return n
	}
	p := c.take(4)
	if p == nil {
		return 0
	}
	n = int(binary.BigEndian.Uint32(p))
	if n > len(c.buf) { // every element takes at least a byte
		c.failed = true
		return 0
	}
	return n
}

func (c *coder) bytes(v *[]byte) {
	n := c.count(len(*v))
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = append([]byte(nil), c.take(n)...)
}

func (c *coder) str(v *string) {
	n := c.count(len(*v))
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = string(c.take(n))
}

func (c *coder) strs(v *[]string) {
	n := c.count(len(*v))
	if c.reading && n > 0 {
		*v = make([]string, n)
	}
	for i := range *v {
		c.str(&(*v)[i])
	}
}

func (c *coder) flag(v *bool) {
	if !c.reading {
		b := byte(0)
		if *v {
			b = 1
		}
		c.buf = append(c.buf, b)
		return
	}
	if p := c.take(1); p != nil {
		*v = p[0] != 0
	}
}

func integer[T ~int | ~int64 | ~uint16 | ~uint64](c *coder, v *T) {
	if !c.reading {
		c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(*v))
		return
	}
	if p := c.take(8); p != nil {
		*v = T(binary.BigEndian.Uint64(p))
	}
}

func records[T any](c *coder, v *[]T, fields func(*T)) {
	n := c.count(len(*v))
	if c.reading && n > 0 {
		*v = make([]T, n)
	}
	for i := range *v {
		fields(&(*v)[i])
	}
}

type message interface{ fields(*coder) }

// Encode gives the payload of a frame.
func Encode(m message) []byte {
	c := coder{}
	m.fields(&c)
	return c.buf
}

// Decode reads a payload into m; the error says that it is cut short or has
// bytes left over, which a shim and a daemon of different versions would cause.
func Decode(payload []byte, m message) error {
	c := coder{buf: payload, reading: true}
	m.fields(&c)
	if c.failed || len(c.buf) != 0 {
		return errors.New("malformed message")
	}
	return nil
}
