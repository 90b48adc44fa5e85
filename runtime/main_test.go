package runtime

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

const shimEnv = "LINKSPAN_RUNTIME_TEST_SHIM"

func TestMain(m *testing.M) {
	if os.Getenv(daemonEnv) != "" {
		daemonMain()
		os.Exit(1)
	}
	nstest.Main(withShim{m})
}

// withShim builds the shim as make does, once the tests run in namespaces.
type withShim struct{ nstest.Runner }

func (w withShim) Run() int {
	if os.Getenv(shimEnv) != "" {
		return w.Runner.Run()
	}
	dir, err := os.MkdirTemp("", "linkspan-shim")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "linkspan-shim")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../cmd/linkspan-shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the shim: %v\n%s", err, out)
		return 1
	}
	os.Setenv(shimEnv, path)
	return w.Runner.Run()
}

// fakeNetworks gives every container the same namespace, and remembers what
// was asked of it.
type fakeNetworks struct {
	mu      sync.Mutex
	netns   string
	files   Attachment
	calls   []string
	refuse  map[string]error     // by method
	leaving func() (tell func()) // called by Detach, if set
}

func (f *fakeNetworks) call(method string, id linkspan.ID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, method+" "+id.Short())
	return f.refuse[method]
}

func (f *fakeNetworks) Reserve(_ context.Context, c Container) error { return f.call("Reserve", c.ID) }

func (f *fakeNetworks) Detach(_ context.Context, id linkspan.ID) (func(), error) {
	err := f.call("Detach", id)
	if f.leaving != nil {
		return f.leaving(), err
	}
	return func() {}, err
}

func (f *fakeNetworks) Forget(_ context.Context, id linkspan.ID) error { return f.call("Forget", id) }

func (f *fakeNetworks) Attach(_ context.Context, c Container) (Attachment, error) {
	a := f.files
	a.Netns = f.netns
	return a, f.call("Attach", c.ID)
}

func (f *fakeNetworks) count(method string, id linkspan.ID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == method+" "+id.Short() {
			n++
		}
	}
	return n
}

// bench is a runtime under test.
type bench struct {
	*Runtime
	networks *fakeNetworks
	machine  *nstest.Machine
	data     string
	run      string
	mu       sync.Mutex
	events   []Event
}

// open makes a runtime on roots of its own, whose containers are all gone when
// the test ends; nstest reports what is left of them.
func open(tb testing.TB) *bench {
	tb.Helper()
	machine := nstest.New(tb)
	b := &bench{machine: machine, networks: &fakeNetworks{netns: kernel.Pin(machine.Name())}, data: tb.TempDir(), run: tb.TempDir()}
	b.reopen(tb)
	tb.Cleanup(func() {
		for _, c := range b.List() {
			if err := b.Remove(context.Background(), string(c.ID), RemoveOptions{Force: true}); err != nil {
				tb.Errorf("removing %s at the end: %v", c.Name, err)
			}
		}
		b.empty(tb)
		b.Close()
	})
	return b
}

// reopen is a daemon's restart, but for Recover.
func (b *bench) reopen(tb testing.TB) {
	tb.Helper()
	if b.Runtime != nil {
		b.Close()
	}
	r, err := New(Options{
		DataRoot: b.data, ExecRoot: b.run, Networks: b.networks, Shim: os.Getenv(shimEnv),
		Events: b.hear,
		Logf:   func(format string, args ...any) { tb.Logf("log: "+format, args...) },
	})
	if err != nil {
		tb.Fatal(err)
	}
	b.Runtime = r
}

// empty checks that the roots hold nothing of any container.
func (b *bench) empty(tb testing.TB) {
	tb.Helper()
	for _, root := range []string{b.data, b.run} {
		left, err := os.ReadDir(filepath.Join(root, "containers"))
		if err != nil {
			tb.Error(err)
		}
		for _, entry := range left {
			tb.Errorf("left behind: %s", filepath.Join(root, "containers", entry.Name()))
		}
	}
}

func (b *bench) hear(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

func (b *bench) actions() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, e := range b.events {
		list = append(list, e.Action)
	}
	return strings.Join(list, " ")
}

// settings change a request.
type setting func(*Request)

func (b *bench) create(tb testing.TB, script string, settings ...setting) Container {
	tb.Helper()
	q := Request{
		Config: &container.Config{Cmd: []string{"sh", "-c", script}}, HostConfig: &container.HostConfig{}, Rootfs: "/",
	}
	for _, s := range settings {
		s(&q)
	}
	c, _, err := b.Create(tb.Context(), q)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func (b *bench) start(tb testing.TB, script string, settings ...setting) Container {
	tb.Helper()
	c := b.create(tb, script, settings...)
	if err := b.Start(tb.Context(), string(c.ID)); err != nil {
		tb.Fatal(err)
	}
	return c
}

// finished runs a script to its end and returns its state and both outputs.
func (b *bench) finished(tb testing.TB, script string, settings ...setting) (State, string, string) {
	tb.Helper()
	c := b.start(tb, script, settings...)
	state := b.wait(tb, c)
	stdout, stderr := b.output(tb, c)
	return state, stdout, stderr
}

func (b *bench) wait(tb testing.TB, c Container) State {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	state, err := b.Wait(ctx, string(c.ID), "")
	if err != nil {
		tb.Fatalf("waiting for %s: %v", c.Name, err)
	}
	return state
}

func (b *bench) output(tb testing.TB, c Container) (string, string) {
	tb.Helper()
	var buf bytes.Buffer
	if err := b.Logs(context.Background(), string(c.ID), LogOptions{Stdout: true, Stderr: true, Tail: -1}, &buf); err != nil {
		tb.Fatal(err)
	}
	if c.Config.Tty {
		return buf.String(), ""
	}
	return unframe(tb, buf.Bytes())
}

// unframe takes Docker's frames apart.
func unframe(tb testing.TB, p []byte) (string, string) {
	tb.Helper()
	var out [3]strings.Builder
	for len(p) > 0 {
		if len(p) < 8 || p[0] < 1 || p[0] > 2 {
			tb.Fatalf("bad frame: %q", p)
		}
		n := int(p[4])<<24 | int(p[5])<<16 | int(p[6])<<8 | int(p[7])
		if len(p) < 8+n {
			tb.Fatalf("frame cut short: %q", p)
		}
		out[p[0]].Write(p[8 : 8+n])
		p = p[8+n:]
	}
	return out[1].String(), out[2].String()
}

func readAll(tb testing.TB, r io.Reader) []byte {
	tb.Helper()
	p, err := io.ReadAll(r)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}
