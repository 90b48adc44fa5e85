package runtime

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
)

// run executes a command in a container and returns its exit code and output.
func (b *bench) execute(tb testing.TB, c Container, q container.ExecCreateRequest, input string) (int, string) {
	tb.Helper()
	q.AttachStdout, q.AttachStderr = true, true
	id, err := b.ExecCreate(tb.Context(), c.Name, q)
	if err != nil {
		tb.Fatal(err)
	}
	stream, err := b.ExecStart(tb.Context(), id, container.ExecStartRequest{})
	if err != nil {
		tb.Fatal(err)
	}
	defer stream.Close()
	if _, err = stream.Write([]byte(input)); err != nil && input != "" {
		tb.Fatal(err)
	}
	if err = stream.CloseWrite(); err != nil {
		tb.Fatal(err)
	}
	raw := readAll(tb, stream)
	x, err := b.ExecWait(within(tb, 10*time.Second), id)
	if err != nil {
		tb.Fatal(err)
	}
	if q.Tty {
		return *x.ExitCode, strings.ReplaceAll(string(raw), "\r\n", "\n")
	}
	out, errs := unframe(tb, raw)
	return *x.ExitCode, out + errs
}

func TestExec(t *testing.T) {
	b := open(t)
	c := b.start(t, "sleep 1000", func(q *Request) {
		q.Config.Hostname, q.Config.Env = "box", []string{"A=1", "B=1"}
		q.HostConfig.CapDrop = []string{"CHOWN"}
	})
	inside := `for n in mnt uts ipc net pid cgroup; do test "$(readlink /proc/self/ns/$n)" = "$(readlink /proc/1/ns/$n)" || echo another $n; done; hostname`
	waiting, err := b.ExecCreate(t.Context(), c.Name, container.ExecCreateRequest{Cmd: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // those of the tests have ended
		if got := b.Execs(c.ID); !slices.Equal(got, []string{waiting}) {
			t.Errorf("%s has not begun, but listed are %v", waiting, got)
		}
	}()
	tests := []struct {
		name, script, input, want string
		code                      int
		change                    func(*container.ExecCreateRequest)
	}{
		{"namespaces", inside, "", "box\n", 0, nil},
		{"exit code", "exit 77", "", "", 77, nil},
		{"killed", "kill -9 $$", "", "", 137, nil},
		{"environment", "echo $A $B $C $HOME", "", "1 2 3 /root\n", 0, func(q *container.ExecCreateRequest) { q.Env = []string{"B=2", "C=3"} }},
		{"user", "id -u; id -g", "", "33\n33\n", 0, func(q *container.ExecCreateRequest) { q.User = "www-data" }},
		{"directory", "pwd", "", "/tmp\n", 0, func(q *container.ExecCreateRequest) { q.WorkingDir = "/tmp" }},
		{"input", "cat", "in and out", "in and out", 0, func(q *container.ExecCreateRequest) { q.AttachStdin = true }},
		{"no input", "cat", "lost", "", 0, nil},
		{"rights", "grep -E '^(CapEff|Seccomp):' /proc/self/status | cut -f2; grep -v cpuset /proc/self/cgroup | cut -d: -f3 | sort -u", "", "00000000a80425fa\n2\n/\n", 0, nil},
		{"privileged", "grep -E '^(Seccomp):' /proc/self/status | cut -f2", "", "0\n", 0, func(q *container.ExecCreateRequest) { q.Privileged = true }},
		{"terminal", "tty; echo $TERM; stty size", "", "/dev/pts/0\nxterm\n24 80\n", 0, func(q *container.ExecCreateRequest) { q.Tty, q.ConsoleSize = true, &[2]uint{24, 80} }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			q := container.ExecCreateRequest{Cmd: []string{"sh", "-c", test.script}}
			if test.change != nil {
				test.change(&q)
			}
			if code, out := b.execute(t, c, q, test.input); code != test.code || out != test.want {
				t.Errorf("got %d %q, want %d %q", code, out, test.code, test.want)
			}
		})
	}
}

func TestExecRefuses(t *testing.T) {
	b := open(t)
	c := b.create(t, "sleep 1000")
	q := container.ExecCreateRequest{Cmd: []string{"nonesuch"}}
	if _, err := b.ExecCreate(t.Context(), c.Name, q); !errors.Is(err, linkspan.ErrConflict) || err.Error() != "container "+string(c.ID)+" is not running" {
		t.Errorf("in a created container: %v", err)
	}
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ExecCreate(t.Context(), c.Name, container.ExecCreateRequest{}); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("no command: %v", err)
	}
	for name, want := range map[string]int{"nonesuch": 127, "/etc": 126, "/etc/passwd": 126, "pwd in /nonesuch": 127, "pwd in tmp": 126} {
		program, dir, _ := strings.Cut(name, " in ")
		q.Cmd, q.WorkingDir = []string{program}, dir
		id, err := b.ExecCreate(t.Context(), c.Name, q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = b.ExecStart(t.Context(), id, container.ExecStartRequest{}); !errors.Is(err, linkspan.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		x, err := b.ExecInspect(id)
		if err != nil || x.ExitCode == nil || *x.ExitCode != want {
			t.Errorf("%s: %+v %v", name, x, err)
		}
		if _, err := b.ExecStart(t.Context(), id, container.ExecStartRequest{}); !errors.Is(err, linkspan.ErrConflict) {
			t.Errorf("starting twice: %v", err)
		}
	}
	if _, err := b.ExecInspect("none"); !errors.Is(err, linkspan.ErrNotFound) || err.Error() != "No such exec instance: none" {
		t.Errorf("%v", err)
	}
}

// TestExecEndsWithContainer: what runs beside PID 1 dies with it.
func TestExecEndsWithContainer(t *testing.T) {
	b := open(t)
	c := b.start(t, "sleep 1000")
	id, err := b.ExecCreate(t.Context(), c.Name, container.ExecCreateRequest{Cmd: []string{"sleep", "1000"}, Tty: true})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := b.ExecStart(t.Context(), id, container.ExecStartRequest{Detach: true})
	if err != nil || stream != nil {
		t.Fatalf("detached start: %v %v", stream, err)
	}
	if err := b.ExecResize(t.Context(), id, 10, 20); err != nil {
		t.Error(err)
	}
	if err := b.Kill(within(t, 10*time.Second), c.Name, ""); err != nil {
		t.Fatal(err)
	}
	if x, err := b.ExecWait(within(t, 5*time.Second), id); err != nil || x.ExitCode == nil || *x.ExitCode != 137 {
		t.Errorf("%+v %v", x, err)
	}
}
