package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
)

func logging(kind string, options ...string) setting {
	return func(q *Request) {
		q.HostConfig.LogConfig = container.LogConfig{Type: kind, Config: map[string]string{}}
		for i := 0; i+1 < len(options); i += 2 {
			q.HostConfig.LogConfig.Config[options[i]] = options[i+1]
		}
	}
}

// numbers is what a script that counts to 400 puts out from a number on.
func numbers(from int) string {
	var b strings.Builder
	for i := from; i <= 400; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

const counts = "i=1; while [ $i -le 400 ]; do echo $i; i=$((i+1)); done"

func TestLogRotation(t *testing.T) {
	b := open(t)
	for _, test := range []struct {
		kind    string
		options []string
		whole   bool // nothing is thrown away
	}{
		{"json-file", []string{"max-size", "4k", "max-file", "20"}, true},
		{"json-file", []string{"max-size", "4k", "max-file", "20", "compress", "true"}, true},
		{"local", []string{"max-size", "4k", "max-file", "20"}, true},
		{"json-file", []string{"max-size", "4k", "max-file", "3"}, false},
		{"json-file", []string{"max-size", "4k"}, false},
	} {
		c := b.start(t, counts, logging(test.kind, test.options...))
		b.wait(t, c)
		out, _ := b.output(t, c)
		if test.whole && out != numbers(1) {
			t.Errorf("%s %v: %d bytes of output", test.kind, test.options, len(out))
		}
		if !test.whole && (!strings.HasSuffix(numbers(1), out) || len(out) == len(numbers(1))) {
			t.Errorf("%s %v: output %q", test.kind, test.options, out)
		}
		names, err := filepath.Glob(b.logFile(c) + "*")
		if err != nil || test.whole && len(names) < 5 {
			t.Errorf("%s %v: files %v %v", test.kind, test.options, names, err)
		}
		for _, name := range names {
			if info, err := os.Stat(name); err == nil && info.Size() > 5000 {
				t.Errorf("%s has %d bytes", name, info.Size())
			}
		}
		if !test.whole {
			continue
		}
		var tail bytes.Buffer
		if err := b.Logs(t.Context(), string(c.ID), LogOptions{Stdout: true, Stderr: true, Tail: 200}, &tail); err != nil {
			t.Fatal(err)
		}
		if out, _ := unframe(t, tail.Bytes()); out != numbers(201) {
			t.Errorf("%s %v: the last 200 lines are %q", test.kind, test.options, out)
		}
	}
}

// TestLogRotationFollowed: who follows a log misses nothing when it is rotated.
func TestLogRotationFollowed(t *testing.T) {
	b := open(t)
	c := b.create(t, counts, logging("json-file", "max-size", "4k", "max-file", "30"))
	var out bytes.Buffer
	done := make(chan error, 1)
	if err := b.Start(t.Context(), string(c.ID)); err != nil {
		t.Fatal(err)
	}
	go func() {
		done <- b.Logs(t.Context(), string(c.ID), LogOptions{Stdout: true, Follow: true, Tail: -1}, &out)
	}()
	b.wait(t, c)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, _ := unframe(t, out.Bytes()); got != numbers(1) {
		t.Errorf("output %q", got)
	}
}

func TestLogNone(t *testing.T) {
	b := open(t)
	c := b.start(t, "echo x", logging("none"))
	b.wait(t, c)
	if err := b.Logs(t.Context(), string(c.ID), LogOptions{Stdout: true, Tail: -1}, io.Discard); !errors.Is(err, linkspan.ErrNotImplemented) {
		t.Errorf("reading: %v", err)
	}
	if _, err := os.Stat(b.logFile(c)); err == nil {
		t.Error("there is a log")
	}
}

func TestLogDetails(t *testing.T) {
	b := open(t)
	c := b.start(t, "echo x", logging("json-file", "labels", "a,b", "env-regex", "^SEEN"), func(q *Request) {
		q.Config.Labels, q.Config.Env = map[string]string{"a": "1 2", "c": "no"}, []string{"SEEN_IT=yes", "OTHER=no"}
	})
	b.wait(t, c)
	var out bytes.Buffer
	if err := b.Logs(t.Context(), string(c.ID), LogOptions{Stdout: true, Details: true, Tail: -1}, &out); err != nil {
		t.Fatal(err)
	}
	if got, _ := unframe(t, out.Bytes()); got != "SEEN_IT=yes,a=1+2 x\n" {
		t.Errorf("output %q", got)
	}
}

// FuzzTail compares the reading from the end with counting from the beginning.
func FuzzTail(f *testing.F) {
	f.Add("oeoo", 2, 10)
	f.Add("eeee", 3, 70000)
	f.Add("", 1, 1)
	f.Fuzz(func(t *testing.T, streams string, tail, width int) {
		if tail < 0 || width < 0 || width > 100_000 || len(streams) > 40 {
			return
		}
		var log bytes.Buffer
		var wanted []string
		for i, s := range []byte(streams) {
			line := logLine{Log: fmt.Sprintf("%d%s\n", i, strings.Repeat(".", width*(i%3)/2)), Stream: "stdout", Time: time.Unix(int64(i), 0)}
			if s%2 == 1 {
				line.Stream = "stderr"
			} else {
				wanted = append(wanted, line.Log)
			}
			if err := json.NewEncoder(&log).Encode(line); err != nil {
				t.Fatal(err)
			}
		}
		name := filepath.Join(t.TempDir(), "log")
		// The older half is in a file of its own.
		cut := bytes.IndexByte(log.Bytes()[log.Len()/2:], '\n') + 1 + log.Len()/2
		if log.Len() == 0 {
			cut = 0
		}
		if err := os.WriteFile(name+".1", log.Bytes()[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, log.Bytes()[cut:], 0o600); err != nil {
			t.Fatal(err)
		}
		files, err := openLogs(name)
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(files)
		var out bytes.Buffer
		l := newLogReader(files, LogOptions{Stdout: true, Tail: tail}, true, &out)
		if err = l.all(t.Context(), -1); err != nil {
			t.Fatal(err)
		}
		if want := strings.Join(wanted[max(len(wanted)-tail, 0):], ""); out.String() != want {
			t.Errorf("tail %d: got %d bytes %.50q, want %d bytes %.50q", tail, out.Len(), out.String(), len(want), want)
		}
	})
}
