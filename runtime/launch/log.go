package launch

import (
	"os"
	"time"
	"unicode/utf8"
)

// longestLine is where Docker cuts a line in two.
const longestLine = 16 << 10

// log writes output in Docker's json-file format, one object a line:
//
//	{"log":"hello\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}
//
// The shim writes it, so that it goes on while the daemon is away. It is
// guarded by its session.
type log struct {
	settings Log
	file     *os.File
	size     int64
	packing  chan struct{} // closed when the last rotated file is compressed; nil for none
	pending  [3][]byte     // by stream: a line that has not ended
	buf      []byte
}

func openLog(settings Log) (*log, error) {
	file, err := os.OpenFile(settings.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, doing("opening the log", err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, doing("opening the log", err)
	}
	return &log{settings: settings, file: file, size: info.Size()}, nil
}

// write takes what was read from a stream and logs the lines that it ends.
func (l *log) write(stream int, p []byte) {
	l.buf = l.buf[:0]
	now := time.Now().UTC()
	for start := 0; start < len(p); {
		end := start
		for end < len(p) && p[end] != '\n' && len(l.pending[stream])+end-start < longestLine {
			end++
		}
		whole := end < len(p)
		if whole && p[end] == '\n' {
			end++
		}
		if !whole {
			l.pending[stream] = append(l.pending[stream], p[start:]...)
			break
		}
		if len(l.pending[stream]) == 0 {
			l.line(stream, p[start:end], now)
		} else {
			l.pending[stream] = append(l.pending[stream], p[start:end]...)
			l.line(stream, l.pending[stream], now)
			l.pending[stream] = l.pending[stream][:0]
		}
		start = end
		if l.settings.MaxSize > 0 && l.size+int64(len(l.buf)) >= l.settings.MaxSize {
			l.flush()
			l.buf = l.buf[:0]
		}
	}
	l.flush()
}

// end logs a last line that has no newline.
func (l *log) end(stream int) {
	if len(l.pending[stream]) == 0 {
		return
	}
	l.buf = l.buf[:0]
	l.line(stream, l.pending[stream], time.Now().UTC())
	l.pending[stream] = nil
	l.flush()
}

func (l *log) line(stream int, p []byte, now time.Time) {
	l.buf = append(l.buf, `{"log":"`...)
	l.buf = appendJSON(l.buf, p)
	if stream == 2 {
		l.buf = append(l.buf, `","stream":"stderr","time":"`...)
	} else {
		l.buf = append(l.buf, `","stream":"stdout","time":"`...)
	}
	l.buf = now.AppendFormat(l.buf, time.RFC3339Nano)
	l.buf = append(l.buf, "\"}\n"...)
}

// flush ignores a full disk, as Docker does: the container is not to blame.
func (l *log) flush() {
	n, _ := l.file.Write(l.buf)
	l.size += int64(n)
	if l.settings.MaxSize > 0 && l.size >= l.settings.MaxSize {
		l.rotate()
	}
}

// appendJSON escapes p for a JSON string; bytes that are not UTF-8 become
// U+FFFD.
func appendJSON(buf, p []byte) []byte {
	const hex = "0123456789abcdef"
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		switch {
		case r == utf8.RuneError && n == 1:
			buf = append(buf, `\ufffd`...)
		case r == '"' || r == '\\':
			buf = append(buf, '\\', byte(r))
		case r == '\n':
			buf = append(buf, `\n`...)
		case r == '\r':
			buf = append(buf, `\r`...)
		case r == '\t':
			buf = append(buf, `\t`...)
		case r < ' ' || r == '<' || r == '>' || r == '&':
			buf = append(buf, `\u00`...)
			buf = append(buf, hex[r>>4], hex[r&15])
		case r == '\u2028' || r == '\u2029': // line ends to JavaScript
			buf = append(buf, `\u202`...)
			buf = append(buf, hex[r&15])
		default:
			buf = append(buf, p[:n]...)
		}
		p = p[n:]
	}
	return buf
}
