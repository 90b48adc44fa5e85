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
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
)

// logReader writes lines of a log, whose files it reads one after the other.
type logReader struct {
	options LogOptions
	raw     bool
	details string // before each line, for LogOptions.Details
	w       io.Writer
	files   []*os.File // oldest first; the last is being written
	reader  *bufio.Reader
	half    []byte // of a line that is being written
	buf     []byte
	past    bool // Until is over
}

func (r *Runtime) openLog(c Container, o LogOptions, w io.Writer) (*logReader, error) {
	files, err := openLogs(r.logFile(c))
	if err != nil {
		return nil, err
	}
	l := newLogReader(files, o, c.Config.Tty, w)
	if o.Details {
		l.details = logDetails(c)
	}
	return l, nil
}

func newLogReader(files []*os.File, o LogOptions, raw bool, w io.Writer) *logReader {
	return &logReader{options: o, raw: raw, w: w, files: files, reader: bufio.NewReaderSize(nil, 64<<10)}
}

func (l *logReader) close() { closeAll(l.files) }

// all writes what there is, up to a length of the last file if that is not
// negative. The last file then stays open for copy.
func (l *logReader) all(ctx context.Context, length int64) error {
	first := 0
	if left := l.options.Tail; left >= 0 {
		for first = len(l.files) - 1; ; first-- {
			var err error
			if left, err = l.seek(l.files[first], left); err != nil {
				return fmt.Errorf("reading the log: %w", err)
			}
			if left == 0 || first == 0 {
				break
			}
		}
	}
	closeAll(l.files[:first])
	l.files = l.files[first:]
	for len(l.files) > 1 {
		if err := l.oldest(ctx); err != nil || l.past {
			return err
		}
	}
	l.reader.Reset(l.files[0])
	if length >= 0 {
		at, err := l.files[0].Seek(0, io.SeekCurrent)
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		l.reader.Reset(io.LimitReader(l.files[0], max(length-at, 0)))
	}
	return l.copy(ctx)
}

// oldest writes the oldest file and closes it.
func (l *logReader) oldest(ctx context.Context) error {
	l.reader.Reset(l.files[0])
	err := l.copy(ctx)
	l.files[0].Close()
	l.files = l.files[1:]
	return err
}

// rotated tells whether the file that is read is no longer the one that is
// written, or has been emptied.
func (l *logReader) rotated(path string) bool {
	now, err := os.Stat(path)
	if err != nil {
		return false
	}
	ours, err := l.files[0].Stat()
	if err != nil || !os.SameFile(now, ours) {
		return err == nil
	}
	at, err := l.files[0].Seek(0, io.SeekCurrent)
	return err == nil && at > now.Size()
}

// next goes on with the files that are newer than the one that was read.
func (l *logReader) next(ctx context.Context, path string) error {
	files, err := openLogs(path)
	if err != nil {
		return err
	}
	newer := len(files) - 1 // ours may be gone by now
	for i, file := range files[:newer] {
		if identical(file, l.files[0]) {
			newer = i + 1
		}
	}
	closeAll(files[:newer])
	l.close()
	l.files, l.half = files[newer:], l.half[:0]
	for len(l.files) > 1 {
		if err := l.oldest(ctx); err != nil || l.past {
			return err
		}
	}
	l.reader.Reset(l.files[0])
	return nil
}

// logDetails is what the driver's options choose of the labels and the
// environment, in Docker's form.
func logDetails(c Container) string {
	chosen := map[string]string{}
	environment := map[string]string{}
	for _, kv := range c.Config.Env {
		key, value, _ := strings.Cut(kv, "=")
		environment[key] = value
	}
	options := c.HostConfig.LogConfig.Config
	for _, from := range []struct {
		option string
		values map[string]string
	}{{"labels", c.Config.Labels}, {"env", environment}} {
		re, err := regexp.Compile(options[from.option+"-regex"])
		matches := options[from.option+"-regex"] != "" && err == nil
		for key, value := range from.values {
			if slices.Contains(strings.Split(options[from.option], ","), key) || matches && re.MatchString(key) {
				chosen[key] = value
			}
		}
	}
	var list []string
	for _, key := range slices.Sorted(maps.Keys(chosen)) {
		list = append(list, url.QueryEscape(key)+"="+url.QueryEscape(chosen[key]))
	}
	return strings.Join(list, ",") + " "
}

// copy writes the lines up to the end of the reader.
func (l *logReader) copy(ctx context.Context) error {
	for {
		text, err := l.reader.ReadBytes('\n')
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
	l.buf = append(l.buf, l.details...)
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

// seek goes to where the last lines begin, which it finds backwards from the
// end, and returns how many there are too few. Only lines that would be written
// count.
func (l *logReader) seek(file *os.File, left int) (int, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	const chunk = 32 << 10
	offset := info.Size()
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
	return left, err
}
