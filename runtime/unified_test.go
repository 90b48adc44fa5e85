package runtime

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
)

const unifiedEnv = "LINKSPAN_RUNTIME_TEST_UNIFIED"

// TestUnifiedOnly runs itself again where only the tree of version 2 is
// mounted, as on a current distribution, though here without controllers.
func TestUnifiedOnly(t *testing.T) {
	if os.Getenv(unifiedEnv) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		script := `cd /sys/fs/cgroup; for d in *; do test $d = unified || umount $d; done; exec "$0" -test.run '^TestUnifiedOnly$' -test.v`
		cmd := exec.Command("unshare", "--mount", "sh", "-euc", script, self)
		cmd.Env = append(os.Environ(), unifiedEnv+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestUnifiedOnly") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	b := open(t)
	_, stdout, stderr := b.finished(t, "grep ^0: /proc/self/cgroup; ls /sys/fs/cgroup | grep -c cgroup.procs; mknod /dev/x c 1 3 2>/dev/null || echo refused")
	if stdout != "0::/\n1\nrefused\n" {
		t.Errorf("%q %q", stdout, stderr)
	}
	q := request("true")
	q.HostConfig.Memory = 64 << 20
	if _, _, err := b.Create(t.Context(), q); !errors.Is(err, linkspan.ErrUnsupported) || !strings.Contains(err.Error(), "cannot limit memory") {
		t.Errorf("a limit without a controller: %v", err)
	}
	c := b.start(t, "while :; do echo tick; sleep 0.01; done")
	b.ready(t, c)
	if err := b.Pause(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(b.cgroups.Group(c.group()).Dirs[0].Path + "/cgroup.events"); err != nil || !strings.Contains(string(text), "frozen 1") {
		t.Errorf("%q %v", text, err)
	}
	if err := b.Unpause(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if code, out := b.execute(t, c, container.ExecCreateRequest{Cmd: []string{"grep", "^0:", "/proc/self/cgroup"}}, ""); code != 0 || out != "0::/\n" {
		t.Errorf("exec: %d %q", code, out)
	}
	if err := b.Pause(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if err := b.Kill(t.Context(), c.Name, ""); err != nil {
		t.Fatal(err)
	}
	if state := b.wait(t, c); state.ExitCode != 137 {
		t.Errorf("%+v", state)
	}
}
