package nstest

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/kernel"
)

// machinePrefix starts the name of every machine, which tells its pin from
// those that the code under test makes.
const machinePrefix = "nstest-"

// Machine is a throw-away host: a network namespace with lo up and nothing
// else, and a kernel.Host in it. It lasts until its test ends.
type Machine struct {
	name  string
	host  *kernel.Host
	fresh sysctls // what a namespace has before anybody touches it
}

// New makes a machine. When the test ends the machine is checked for what was
// left behind (see [Leaks]) and removed. It stops the test if the process was
// not started by [Main].
func New(tb testing.TB) *Machine {
	tb.Helper()
	if keeper() == 0 {
		tb.Fatal("no namespaces of our own: the package needs func TestMain(m *testing.M) { nstest.Main(m) }")
	}
	before := survey(tb)
	base, err := kernel.Open()
	if err != nil {
		tb.Fatal(err)
	}
	defer base.Close()
	m := &Machine{name: machinePrefix + randomHex()}
	if err = base.PinNetns(m.name); err != nil {
		tb.Fatal(err)
	}
	if m.host, err = kernel.OpenAt(kernel.Pin(m.name)); err != nil {
		tb.Fatal(errors.Join(err, base.UnpinNetns(m.name)))
	}
	tb.Cleanup(func() { m.remove(tb, before) })
	if err := m.host.Inside("", plain); err != nil {
		tb.Fatal(err)
	}
	m.fresh = m.sysctls(tb, m.name)
	return m
}

func (m *Machine) remove(tb testing.TB, before inventory) {
	tb.Helper()
	m.reportLeaks(tb, before)
	if err := errors.Join(m.host.Close(), m.host.UnpinNetns(m.name)); err != nil {
		tb.Errorf("removing machine %s: %v", m.name, err)
	}
}

// Host returns the machine's door to the kernel. It is closed when the test
// ends.
func (m *Machine) Host() *kernel.Host { return m.host }

// Name returns the name under which ip-netns(8) knows the machine: it is
// unique, and an argument for ip -n.
func (m *Machine) Name() string { return m.name }

// Sh runs a script in the machine with sh -eu and returns what it printed,
// both streams. If the script fails the test stops. The script sees a /sys of
// the machine's own, so that brctl works; namespaces that it pins with ip
// netns outlast it, any other mount that it makes does not.
func (m *Machine) Sh(tb testing.TB, script string) string {
	tb.Helper()
	out, err := m.TrySh(script)
	if err != nil {
		tb.Fatalf("%v\nscript:\n%s\noutput:\n%s", err, indent(script), indent(out))
	}
	return out
}

// TrySh is Sh for a script that may fail: err is then an *exec.ExitError.
func (m *Machine) TrySh(script string) (string, error) {
	// A file, since a pipe would make Wait wait for background processes too.
	output, err := memfile("output")
	if err != nil {
		return "", err
	}
	defer output.Close()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Stdout, cmd.Stderr = output, output
	err = m.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	printed, readErr := rewound(output)
	if err != nil {
		return printed, fmt.Errorf("running a script in %s: %w", m.name, err)
	}
	return printed, readErr
}

// Start runs a script in the machine in the background, like Sh. The returned
// function kills it with all that it started in its process group, and returns
// what it printed; it also runs when the test ends.
func (m *Machine) Start(tb testing.TB, script string) (stop func() string) {
	tb.Helper()
	output, err := memfile("output")
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command("sh", "-euc", script)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.start(cmd); err != nil {
		tb.Fatalf("starting a script in %s: %v", m.name, err)
	}
	var printed string
	stopped := false
	stop = func() string {
		if stopped {
			return printed
		}
		stopped = true
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it has ended by itself
		cmd.Wait()                                      //nolint:errcheck // killed, as wanted
		printed, _ = rewound(output)
		output.Close()
		return printed
	}
	tb.Cleanup(func() { stop() })
	return stop
}

// start starts a command in the machine. The child is forked by the very
// thread that entered the namespaces, so it has them; that thread ends at once,
// which is why Pdeathsig is out of the question.
func (m *Machine) start(cmd *exec.Cmd) error {
	return m.host.Inside("", func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("making a mount namespace: %w", err)
		}
		if err := ownSys(); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// Wire joins two machines by a cable: a veth pair that is up at both ends and
// has the given addresses. It returns the name that the link has in both.
func Wire(tb testing.TB, a, b *Machine, addrA, addrB netip.Prefix) string {
	tb.Helper()
	name := "wire-" + randomHex()
	script := fmt.Sprintf("ip link add %s type veth peer name %s netns %s\n", name, name, b.name)
	for _, end := range []struct {
		machine *Machine
		addr    netip.Prefix
	}{{a, addrA}, {b, addrB}} {
		extra := ""
		if end.addr.Addr().Is6() {
			extra = "nodad"
		}
		script += fmt.Sprintf("ip -n %[1]s link set %[2]s up\nip -n %[1]s addr add %[3]s dev %[2]s %[4]s\n", end.machine.name, name, end.addr, extra)
	}
	a.Sh(tb, script)
	return name
}

// Until polls a condition until it holds, for as long as limit, and tells
// whether it did.
func Until(limit time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if holds() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

func memfile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func rewound(file *os.File) (string, error) {
	raw, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<30))
	return string(raw), err
}

func randomHex() string {
	var raw [4]byte
	rand.Read(raw[:]) // never fails: see crypto/rand.Read
	return hex.EncodeToString(raw[:])
}

func indent(text string) string {
	return "\t" + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n\t")
}
