package runtime

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
)

func TestKept(t *testing.T) {
	b := open(t)
	var made []*os.File
	for range 250 { // more than fit into one message
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		made = append(made, r)
		b.networks.files.Keep = append(b.networks.files.Keep, w)
	}
	c := b.start(t, "ls /proc/self/fd | wc -l; sleep 1000")
	b.ready(t, c)
	kept, err := b.Kept(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range kept {
		if !sameFile(t, file, made[i]) { // both ends of a pipe are one file
			t.Errorf("descriptor %d is another one", i)
		}
		file.Close()
	}
	if len(kept) != len(b.networks.files.Keep) {
		t.Errorf("%d descriptors came back", len(kept))
	}
	for i, file := range b.networks.files.Keep {
		if !errors.Is(file.Close(), os.ErrClosed) {
			t.Errorf("descriptor %d was left open after the start", i)
		}
	}
	if out, _ := b.output(t, c); out != "4\n" {
		t.Errorf("the container has descriptors: %q", out)
	}
}

func sameFile(tb testing.TB, a, b *os.File) bool {
	tb.Helper()
	x, err := a.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	y, err := b.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	return os.SameFile(x, y)
}

func TestAttach(t *testing.T) {
	b := open(t)
	c := b.create(t, "", command("cat"), func(q *Request) { q.Config.OpenStdin, q.Config.StdinOnce = true, true })
	stream, err := b.Attach(t.Context(), c.Name, AttachOptions{Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err = b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if _, err = stream.Write([]byte("to and fro\n")); err != nil {
		t.Fatal(err)
	}
	if err = stream.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, _ := unframe(t, readAll(t, stream)); out != "to and fro\n" {
		t.Errorf("got %q", out)
	}
	if state := b.wait(t, c); state.ExitCode != 0 {
		t.Errorf("%+v", state)
	}

	c = b.start(t, "echo before; read x; echo after $x >&2", func(q *Request) { q.Config.OpenStdin = true })
	b.ready(t, c)
	gone, err := b.Attach(t.Context(), c.Name, AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	gone.Close() // a client that dies takes nothing along
	stream, err = b.Attach(t.Context(), c.Name, AttachOptions{Stdin: true, Stdout: true, Stderr: true, Logs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := stream.Write([]byte("all\n")); err != nil {
		t.Fatal(err)
	}
	if out, errs := unframe(t, readAll(t, stream)); out != "before\n" || errs != "after all\n" {
		t.Errorf("got %q and %q", out, errs)
	}
}

func TestTerminal(t *testing.T) {
	b := open(t)
	c := b.create(t, "stty size; tty; test -t 0 && echo $TERM; stat -c %t /dev/console; read x; stty size; echo $x", func(q *Request) {
		q.Config.Tty, q.Config.OpenStdin = true, true
		q.HostConfig.ConsoleSize = [2]uint{25, 81}
	})
	stream, err := b.Attach(t.Context(), c.Name, AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if err := b.Resize(t.Context(), c.Name, 30, 90); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(string(readAll(t, stream)), "\r\n", "\n")
	for _, want := range []string{"/dev/pts/0\n", "xterm\n", "\n88\n", "30 90\n", "hello\nhello\n"} {
		if want == "hello\nhello\n" { // echo and answer, in whatever order with the rest
			if strings.Count(got, "hello") != 2 {
				t.Errorf("got %q, want hello twice", got)
			}
		} else if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	c = b.start(t, "sleep 1000")
	if err := b.Resize(t.Context(), c.Name, 1, 1); err != nil {
		t.Errorf("telling a container without a terminal of a window: %v", err)
	}
}

func TestLogs(t *testing.T) {
	b := open(t)
	c := b.create(t, "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; sleep 0.02; done; printf end")
	var follow bytes.Buffer
	followed := make(chan error, 1)
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	go func() {
		followed <- b.Logs(within(t, 20*time.Second), c.Name, LogOptions{Stdout: true, Follow: true, Tail: -1}, &follow)
	}()
	b.wait(t, c)
	if err := <-followed; err != nil {
		t.Error(err)
	}
	if out, _ := unframe(t, follow.Bytes()); out != "o1\no2\no3\no4\no5\nend" {
		t.Errorf("followed %q", out)
	}
	logs := func(o LogOptions) string {
		var buf bytes.Buffer
		if err := b.Logs(t.Context(), c.Name, o, &buf); err != nil {
			t.Fatal(err)
		}
		out, errs := unframe(t, buf.Bytes())
		return out + "|" + errs
	}
	tests := []struct {
		options LogOptions
		want    string
	}{
		{LogOptions{Stdout: true, Tail: 2}, "o5\nend|"},
		{LogOptions{Stderr: true, Tail: 2}, "|e4\ne5\n"},
		{LogOptions{Stdout: true, Stderr: true, Tail: 0}, "|"},
		{LogOptions{Stdout: true, Tail: 100}, "o1\no2\no3\no4\no5\nend|"},
		{LogOptions{Stdout: true, Tail: -1, Since: time.Now()}, "|"},
		{LogOptions{Stdout: true, Tail: -1, Until: c.Created}, "|"},
	}
	for _, test := range tests {
		if got := logs(test.options); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.options, got, test.want)
		}
	}
	stamped := logs(LogOptions{Stdout: true, Tail: 1, Timestamps: true})
	if at, err := time.Parse(time.RFC3339Nano, strings.Fields(stamped)[0]); err != nil || time.Since(at) > time.Minute || !strings.HasSuffix(stamped, " end|") {
		t.Errorf("timestamps: %q %v", stamped, err)
	}
	if err := b.Logs(t.Context(), c.Name, LogOptions{}, &follow); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("no stream chosen: %v", err)
	}
}

// TestSlowClient: a client that does not read holds the container up, nothing
// is lost, and with the client gone the container goes on.
func TestSlowClient(t *testing.T) {
	b := open(t)
	c := b.create(t, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo done >&2")
	stream, err := b.Attach(t.Context(), c.Name, AttachOptions{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if err = b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if got, _ := b.Get(c.Name); !got.State.Running() {
		t.Error("3 MB went to a client that reads nothing")
	}
	if err = stream.Close(); err != nil {
		t.Fatal(err)
	}
	if state := b.wait(t, c); state.ExitCode != 0 {
		t.Errorf("%+v", state)
	}
	if out, errs := b.output(t, c); len(out) != 3_000_001 || errs != "done\n" {
		t.Errorf("%d bytes and %q in the log", len(out), errs)
	}
}
