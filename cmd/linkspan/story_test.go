package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// programEnv makes the test binary the program itself.
const programEnv = "LINKSPAN_TEST_IS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		main()
	}
	nstest.Main(m)
}

// story is a real daemon on a machine of its own, and a shell to talk to it.
type story struct {
	t       *testing.T
	machine *nstest.Machine
	dir     string
	daemon  *exec.Cmd
	log     journal
}

// journal keeps what programs write to it, and can be read meanwhile.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func newStory(t *testing.T) *story {
	m := nstest.New(t)
	dir, err := os.MkdirTemp("", "story") //nolint:usetesting // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	s := &story{t: t, machine: m, dir: dir}
	t.Cleanup(func() {
		s.reportRaces()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", s.log.String())
		}
		os.RemoveAll(dir)
	})
	return s
}

// reportRaces fails the test for each data race that the race detector saw in a
// program of the story.
func (s *story) reportRaces() {
	reports, err := filepath.Glob(s.raceLog() + ".*")
	if err != nil {
		s.t.Error(err)
	}
	for _, path := range reports {
		report, err := os.ReadFile(path)
		s.t.Errorf("a data race (%v):\n%s", err, report)
	}
}

// raceLog is where the race detector writes: a file for each process, named by
// its ID.
func (s *story) raceLog() string { return filepath.Join(s.dir, "race") }

func (s *story) program(ctx context.Context, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + s.machine.Name(), self}, args...)...)
	cmd.Env = append(
		os.Environ(), programEnv+"=1", "LINKSPAN_HOST=unix://"+filepath.Join(s.dir, "s"),
		// By default a program that the detector watches sleeps for a second before it exits.
		"GORACE=atexit_sleep_ms=0 log_path="+s.raceLog(),
	)
	return cmd
}

func (s *story) daemonArgs(more ...string) []string {
	return append([]string{
		"daemon", "-H", "unix://" + filepath.Join(s.dir, "s"), "--data-root", filepath.Join(s.dir, "data"),
		"--exec-root", filepath.Join(s.dir, "exec"), "--config-file", filepath.Join(s.dir, "none.json"),
	}, more...)
}

func (s *story) start(flags ...string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "none.json"), []byte("{}"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.daemon = s.program(context.Background(), s.daemonArgs(flags...)...)
	s.daemon.Stderr = &s.log
	if err := s.daemon.Start(); err != nil {
		s.t.Fatal(err)
	}
	if !nstest.Until(10*time.Second, func() bool { _, err := s.try("version"); return err == nil }) {
		s.t.Fatalf("the daemon does not answer:\n%s", s.log.String())
	}
}

// end ends the daemon: with kill -9 if hard, else in an orderly way.
func (s *story) end(signal os.Signal) {
	s.t.Helper()
	if err := s.daemon.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
	s.daemon.Wait() //nolint:errcheck // a killed process has no good exit status
}

func (s *story) try(args ...string) (string, error) {
	out, err := s.program(context.Background(), args...).CombinedOutput()
	return string(out), err
}

// do runs a command that must succeed and returns what it printed.
func (s *story) do(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("linkspan %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// leave removes everything; the machine then checks that nothing is left.
func (s *story) leave() {
	s.t.Helper()
	s.clear()
	s.end(os.Interrupt)
	s.do(s.daemonArgs("--uninstall")...)
}

func (s *story) clear() {
	s.t.Helper()
	for _, id := range strings.Fields(s.do("ps", "-aq")) {
		s.do("rm", "-f", id)
	}
	s.do("network", "prune", "-f")
}

func TestMainJob(t *testing.T) {
	s := newStory(t)
	s.start()
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--network-alias", "www", "--rootfs", "/", "--", "python3", "-m", "http.server", "80")
	out := s.do("run", "--rm", "--network", "lab", "--ip", "10.77.0.50", "--mac-address", "02:42:0a:4d:00:32", "--add-host", "db:10.77.0.7",
		"--dns", "10.77.0.53", "--hostname", "probe", "--rootfs", "/", "--", "sh", "-c",
		"ip addr; cat /etc/hosts /etc/resolv.conf; hostname; for i in 1 2 3 4 5 6 7 8 9; do curl -fsS http://www/ && break; sleep 0.2; done")
	for _, want := range []string{
		"inet 10.77.0.50/24", "link/ether 02:42:0a:4d:00:32", "10.77.0.7\tdb", "10.77.0.50\tprobe",
		"nameserver 127.0.0.11", "ExtServers: [10.77.0.53]", "\nprobe\n", "Directory listing for /",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the probe did not print %q:\n%s", want, out)
		}
	}
	if got := s.do("explain", "run", "--network", "lab", "--rootfs", "/", "--", "true"); !strings.Contains(got, "type veth peer name eth0") {
		t.Errorf("explain:\n%s", got)
	}
	if out, err := s.try("network", "rm", "lab"); err == nil || !strings.Contains(out, `name:"web"`) {
		t.Errorf("removal of a network in use: %v, %s", err, out)
	}
	s.do("kill", "web")
	if got := s.do("wait", "web"); got != "137" {
		t.Errorf("exit status after SIGKILL: %s, want 128+9", got)
	}
	s.do("rm", "web")
	s.do("network", "rm", "lab")
	s.leave()
}

func TestExitCodes(t *testing.T) {
	s := newStory(t)
	s.start()
	for command, want := range map[string]int{
		"run --rm --rootfs / -- true":                                   0,
		"run --rm --rootfs / -- sh -c exit~255":                         255,
		"run --rm --rootfs / -- /no/such":                               127,
		"run --rm --rootfs / -- nosuchcommand":                          127,
		"run --rm --rootfs / -- /etc":                                   126,
		"run --rm --rootfs /no/such -- true":                            125,
		"run --rm --network nowhere --rootfs / -- true":                 125,
		"run --rm --network lab --ip 10.99.0.1 --rootfs / -- true":      125,
		"run --rm --name ../x --rootfs / -- true":                       125,
		"network create --subnet 10.77.0.1/24 bad":                      1,
		"network create a/b":                                            1,
		"network create --subnet nonsense bad":                          1,
		"network rm bridge":                                             1,
		"network rm nowhere":                                            1,
		"run --rm --mac-address nonsense --rootfs / -- true":            125,
		"network create -o com.docker.network.driver.mtu=many badmtu":   1,
		"network create --subnet 10.77.0.0/16 --gateway 10.99.0.1 badg": 1,
	} {
		args := strings.Fields(command)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "~", " ") // a space within a word
		}
		out, err := s.try(args...)
		code := 0
		if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // exec wraps nothing
			code = exit.ExitCode()
		}
		if code != want || (want != 0 && want < 128 && strings.Count(strings.TrimSpace(out), "\n") > 1) {
			t.Errorf("linkspan %s: exit %d, want %d\n%s", command, code, want, out)
		}
	}
	if left := s.do("network", "ls", "-q", "--filter", "type=custom"); left != "" {
		t.Errorf("refused networks exist: %s", left)
	}
	s.leave()
}

// A container, its output and its exit status outlive the daemon, and so does
// name resolution.
func TestRestartLeavesContainersAlone(t *testing.T) {
	s := newStory(t)
	s.start()
	s.do("network", "create", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "--", "sleep", "600")
	s.do("run", "-d", "--name", "short", "--network", "lab", "--rootfs", "/", "--", "sh", "-c", "echo before; sleep 1; echo after; exit 7")
	s.end(os.Kill)
	time.Sleep(1500 * time.Millisecond) // short ends while nobody is there
	s.start()
	if got := s.do("wait", "short"); got != "7" {
		t.Errorf("exit status of a container that ended meanwhile: %s", got)
	}
	if got := s.do("logs", "short"); got != "before\nafter" {
		t.Errorf("its output: %q", got)
	}
	s.do("rm", "short")
	if got := s.do("exec", "web", "dig", "+short", "+time=2", "@127.0.0.11", "web"); !strings.HasPrefix(got, "172.18.") {
		t.Errorf("the resolver says %q", got)
	}
	s.leave()
}

// A start hands descriptors to the shim: the daemon must not keep its own.
func TestStartsCostNoDescriptors(t *testing.T) {
	t.Setenv("GOGC", "off") // the collector would close what was forgotten
	s := newStory(t)
	s.start()
	s.do("network", "create", "lab")
	once := func() { s.do("run", "--rm", "--network", "lab", "--rootfs", "/", "--", "true") }
	once() // what is opened once and stays: the nftables socket, say
	descriptors := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.daemon.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := descriptors()
	const starts = 6
	for range starts {
		once()
	}
	if !nstest.Until(3*time.Second, func() bool { return descriptors() <= before+2 }) {
		t.Errorf("%d descriptors before %d starts, %d after", before, starts, descriptors())
	}
	s.leave()
}

// TestKillAtRandom kills the daemon at a random instant of a busy life, again
// and again: the next daemon must clean up so that nothing is left in the end.
func TestKillAtRandom(t *testing.T) {
	s := newStory(t)
	s.start()
	s.clear()
	if err := s.machine.Host().Reap(); err != nil {
		t.Fatal(err)
	}
	before := s.machine.Dump(t)
	const rounds = 12
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.live(ctx, round)
		}()
		time.Sleep(time.Duration(random.IntN(900)) * time.Millisecond)
		s.end(os.Kill)
		cancel()
		<-done
		s.start()
		s.clear()
		settled := nstest.Until(5*time.Second, func() bool { return nstest.Diff(before, s.machine.Dump(t)) == "" })
		if !settled {
			t.Fatalf("round %d: left behind:\n%s\nthe daemon's log:\n%s", round, nstest.Diff(before, s.machine.Dump(t)), s.log.String())
		}
	}
	s.leave()
}

// live is what clients do while the daemon is killed under them.
func (s *story) live(ctx context.Context, round int) {
	name := func(what string) string { return fmt.Sprintf("%s%d", what, round) }
	for _, args := range [][]string{
		{"network", "create", name("net")},
		{"run", "-d", "--name", name("a"), "--network", name("net"), "--rootfs", "/", "--", "sleep", "600"},
		{"run", "--rm", "--network", name("net"), "--rootfs", "/", "--", "true"},
		{"network", "create", name("other")},
		{"network", "connect", name("other"), name("a")},
		{"rm", "-f", name("a")},
		{"network", "rm", name("net")},
	} {
		if s.program(ctx, args...).Run() != nil {
			return
		}
	}
}
