package runtime

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// LogOptions choose what Logs writes.
type LogOptions struct {
	Stdout, Stderr bool
	Follow         bool // go on until the container stops
	Timestamps     bool // RFC 3339 and a blank before each line
	Since, Until   time.Time
	Tail           int // the last lines only; negative is all
}

// logLine is one line of Docker's json-file format.
type logLine struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// Logs writes what the container has put out, over all its runs: as Docker's
// frames, or raw if it has a terminal.
func (r *Runtime) Logs(ctx context.Context, ref string, o LogOptions, w io.Writer) error {
	if !o.Stdout && !o.Stderr {
		return linkspan.Errorf(linkspan.ErrInvalid, "Bad parameters: you must choose at least one stream")
	}
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	c := e.get()
	if !o.Follow {
		return r.readLog(ctx, c, o, -1, w)
	}
	return r.followLog(ctx, e, o, w)
}

// readLog writes the log up to a length in bytes; negative is all there is.
func (r *Runtime) readLog(ctx context.Context, c Container, o LogOptions, length int64, w io.Writer) error {
	file, err := os.Open(r.logFile(c.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has never run
	}
	if err != nil {
		return fmt.Errorf("reading the log of container %s: %w", c.ID.Short(), err)
	}
	defer file.Close()
	l := logReader{options: o, raw: c.Config.Tty, w: w}
	start, err := l.seek(file)
	if err != nil {
		return fmt.Errorf("reading the log of container %s: %w", c.ID.Short(), err)
	}
	var from io.Reader = file
	if length >= 0 {
		from = io.LimitReader(file, max(length-start, 0))
	}
	return l.copy(ctx, bufio.NewReaderSize(from, 64<<10))
}

// followLog reads to the end, and again at each change of the file, until the
// container has stopped before the last reading began.
func (r *Runtime) followLog(ctx context.Context, e *entry, o LogOptions, w io.Writer) error {
	c := e.get()
	// A container that was never started has no file to watch yet.
	file, err := os.OpenFile(r.logFile(c.ID), os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return fmt.Errorf("reading the log of container %s: %w", c.ID.Short(), err)
	}
	defer file.Close()
	watch, err := watchFile(file.Name())
	if err != nil {
		return fmt.Errorf("watching the log of container %s: %w", c.ID.Short(), err)
	}
	defer watch.Close()
	written := make(chan struct{}, 1)
	go func() {
		buf := make([]byte, 4<<10)
		for {
			if _, err := watch.Read(buf); err != nil {
				return
			}
			select {
			case written <- struct{}{}:
			default:
			}
		}
	}()
	l := logReader{options: o, raw: c.Config.Tty, w: w}
	if _, err := l.seek(file); err != nil {
		return fmt.Errorf("reading the log of container %s: %w", c.ID.Short(), err)
	}
	reader := bufio.NewReaderSize(file, 64<<10)
	for {
		e.mu.Lock()
		running, changed := e.c.State.Running() && !e.removed, e.changed
		e.mu.Unlock()
		if err := l.copy(ctx, reader); err != nil || !running || l.past {
			return err
		}
		select {
		case <-written:
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watchFile returns an inotify descriptor that is readable after a write.
func watchFile(name string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init", err)
	}
	if _, err := unix.InotifyAddWatch(fd, name, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

type logReader struct {
	options LogOptions
	raw     bool
	w       io.Writer
	half    []byte // of a line that is being written
	buf     []byte
	past    bool // Until is over
}

// copy writes the lines up to the end of the reader.
func (l *logReader) copy(ctx context.Context, reader *bufio.Reader) error {
	for {
		text, err := reader.ReadBytes('\n')
		l.half = append(l.half, text...)
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		var line logLine
		damaged := json.Unmarshal(l.half, &line) != nil
		l.half = l.half[:0]
		if damaged { // a power cut; the rest is good
			continue
		}
		if err := l.emit(line); err != nil || l.past {
			return err
		}
	}
}

func (l *logReader) emit(line logLine) error {
	o := &l.options
	switch {
	case !o.Until.IsZero() && line.Time.After(o.Until):
		l.past = true
		return nil
	case !o.wants(line):
		return nil
	}
	l.buf = l.buf[:0]
	stream := byte(1)
	if line.Stream == "stderr" {
		stream = 2
	}
	if !l.raw {
		l.buf = append(l.buf, stream, 0, 0, 0, 0, 0, 0, 0)
	}
	if o.Timestamps {
		// Docker pads the fraction, so that lines stay aligned.
		l.buf = line.Time.AppendFormat(l.buf, "2006-01-02T15:04:05.000000000Z07:00")
		l.buf = append(l.buf, ' ')
	}
	l.buf = append(l.buf, line.Log...)
	if !l.raw {
		binary.BigEndian.PutUint32(l.buf[4:], uint32(len(l.buf)-8))
	}
	_, err := l.w.Write(l.buf)
	return err
}

func (o *LogOptions) wants(line logLine) bool {
	if line.Stream == "stderr" && !o.Stderr || line.Stream != "stderr" && !o.Stdout {
		return false
	}
	return o.Since.IsZero() || !line.Time.Before(o.Since)
}

// seek goes to where the last Tail lines begin, which it finds backwards from
// the end, and returns that offset. Only lines that would be written count.
func (l *logReader) seek(file *os.File) (int64, error) {
	if l.options.Tail < 0 {
		return 0, nil
	}
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	const chunk = 32 << 10
	offset, left := info.Size(), l.options.Tail
	var tail []byte // a line's end whose beginning is not read yet
	begin := offset // of the lines found
	for offset > 0 && left > 0 {
		n := min(chunk, offset)
		offset -= n
		block := make([]byte, n, int(n)+len(tail))
		if _, err = file.ReadAt(block, offset); err != nil {
			return 0, err
		}
		tail = append(block, tail...)
		for left > 0 {
			end := len(tail)
			if end > 0 && tail[end-1] == '\n' {
				end--
			}
			i := bytes.LastIndexByte(tail[:end], '\n')
			if i < 0 && offset > 0 || len(tail) == 0 {
				break
			}
			var line logLine
			if json.Unmarshal(tail[i+1:], &line) == nil && l.options.wants(line) {
				left--
				begin = offset + int64(i) + 1
			}
			tail = tail[:i+1]
		}
	}
	_, err = file.Seek(begin, io.SeekStart)
	return begin, err
}
