package brctl_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab/brctl"
	"github.com/linkspan/linkspan/op"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// links are what the command lines of the tests work on: MACs are given, since
// they are in the output, and IPv6 is off, since its solicitations would teach a
// bridge stations.
const links = `
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
for i in 1 2 3; do
	ip link add v$i address 02:00:00:00:00:0$i type veth peer name p$i address 02:00:00:00:01:0$i
	ip link set v$i up; ip link set p$i up
done`

// changing matches what differs between two runs a moment apart: timers, and
// the random MAC of a bridge without ports.
var changing = regexp.MustCompile(`((hello|gc|forward delay) timer)\s+\d+\.\d\d|\b8000\.[0-9a-f]{12}\b`)

func masked(text string) string {
	return changing.ReplaceAllStringFunc(text, func(match string) string {
		if strings.HasPrefix(match, "8000.0200000000") {
			return match
		}
		return changing.ReplaceAllString(match, "${1} #")
	})
}

// TestSameAsBridgeUtils runs the same command lines with brctl(8) on one
// machine and with this package on another, and compares every answer.
func TestSameAsBridgeUtils(t *testing.T) {
	theirs, ours := nstest.New(t), nstest.New(t)
	theirs.Sh(t, links)
	ours.Sh(t, links)
	for _, line := range []string{
		"show", "addbr br0", "addbr lan", "show", "show br0", "show nope", "show v1", "show nope br0", "show br0 nope",
		"addbr br0", "addbr v1", "addif br0 v1 v2", "addif lan v3", "show", "show lan br0",
		"addif br0 v3", "addif nope p1", "addif br0 zz", "addif br0 lan", "addif br0 lo", "addif v1 p1",
		"! ip link set br0 up", "showmacs br0", "showmacs nope", "showstp br0", "showstp nope", "showstp v1",
		"stp br0 on", "show br0", "stp br0 perhaps", "stp nope on", "stp br0 off",
		"setfd br0 8", "setfd br0 1.5", "setfd br0 x", "setfd nope 8", "sethello br0 1", "sethello br0 900", "setmaxage br0 12.5", "setmaxage br0 900",
		"setageing br0 100", "setageing br0 x", "setbridgeprio br0 0x1000", "setbridgeprio br0 99999", "setbridgeprio br0 x",
		"setpathcost br0 v1 77", "setpathcost br0 v1 0", "setpathcost br0 zz 1", "setpathcost br0 v1 x",
		"setportprio br0 v1 3", "setportprio br0 v1 300", "setportprio br0 v1 x", "setportprio br0 zz 1",
		"setpathcost br0 p1 5", "setportprio lan p1 5", "setpathcost nope v1 79", "setportprio lan v1 4", "setpathcost nope zz 1",
		"hairpin nope v1 on", "hairpin br0 zz on", "hairpin nope zz on", "hairpin br0 p1 on", "hairpin lan v1 on", "hairpin br0 v1 off",
		"hairpin br0 v1 on", "hairpin br0 v1 maybe", "showstp br0", "hairpin br0 v1 off", "showstp br0",
		"delif br0 v3", "delif nope v1", "delif br0 zz", "delif br0 v1", "show br0",
		"delbr br0", "! ip link set br0 down", "delbr br0", "delbr br0", "delbr v1", "delbr lan", "show",
		"addbr averyveryverylongname", "show", "delbr averyveryverylo", "setbridgeprio nope 1", "sethello nope 1", "setmaxage nope 1", "setageing nope 1",
		"", "addbr", "show a b", "stp br0", "sing", "-h",
	} {
		if shell, ok := strings.CutPrefix(line, "! "); ok {
			theirs.Sh(t, shell)
			ours.Sh(t, shell)
			continue
		}
		want := theirs.Sh(t, "brctl "+line+" 2>&1 && echo 0 || echo 1")
		var out, errs strings.Builder
		tool := brctl.Tool{Host: ours.Host(), Out: &out, Err: &errs}
		code := tool.Run(t.Context(), strings.Fields(line))
		got := fmt.Sprintf("%s%s%d\n", &errs, &out, code)
		if masked(got) != masked(want) {
			t.Errorf("brctl %s:\n%s\nwant, as bridge-utils says:\n%s", line, got, want)
		}
	}
}

// TestStationsAreLearnt sends a frame in by a port and finds its sender behind
// that port, with an age, as bridge-utils does.
func TestStationsAreLearnt(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, links+`
ip link add br0 type bridge; ip link set br0 up
ip link set v1 master br0; ip link set v2 master br0
ip addr add 10.0.0.1/24 dev p1; ip route add 10.0.0.9 dev p1
ping -c1 -W1 10.0.0.9 >/dev/null || true`)
	age := regexp.MustCompile(`\d+\.\d\d`)
	want := age.ReplaceAllString(m.Sh(t, "brctl showmacs br0"), "#")
	if !strings.Contains(want, "02:00:00:00:01:01\tno") {
		t.Fatalf("the bridge has not learnt the station:\n%s", want)
	}
	var out strings.Builder
	if code := (brctl.Tool{Host: m.Host(), Out: &out, Err: &out}).Run(t.Context(), []string{"showmacs", "br0"}); code != 0 {
		t.Fatal(out.String())
	}
	if got := age.ReplaceAllString(out.String(), "#"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestExplained does what explain prints, in a second machine, and finds the
// same there as the tool makes.
func TestExplained(t *testing.T) {
	for _, dialect := range []op.Dialect{op.IP, op.Brctl} {
		t.Run(string(dialect), func(t *testing.T) { explained(t, dialect) })
	}
}

func explained(t *testing.T, dialect op.Dialect) {
	t.Helper()
	done, told := nstest.New(t), nstest.New(t)
	done.Sh(t, links)
	told.Sh(t, links)
	for _, line := range []string{
		"addbr br0", "addif br0 v1 v2", "stp br0 on", "stp br0 off", "setfd br0 9", "sethello br0 1", "setmaxage br0 12", "setageing br0 50",
		"setbridgeprio br0 4096", "setpathcost br0 v1 9", "setportprio br0 v1 7", "hairpin br0 v2 on", "delif br0 v2", "addbr gone", "delbr gone",
	} {
		var out strings.Builder
		if code := (brctl.Tool{Host: told.Host(), Out: &out, Err: &out, Explain: true, Dialect: dialect}).Run(t.Context(), strings.Fields(line)); code != 0 {
			t.Fatalf("explain brctl %s: %s", line, out.String())
		}
		if said := strings.Contains(out.String(), "brctl "+strings.Fields(line)[0]); said != (dialect == op.Brctl) {
			t.Errorf("explain brctl %s in dialect %s: %s", line, dialect, out.String())
		}
		told.Sh(t, out.String())
		if code := (brctl.Tool{Host: done.Host(), Out: &out, Err: &out}).Run(context.Background(), strings.Fields(line)); code != 0 {
			t.Fatalf("brctl %s: %s", line, out.String())
		}
	}
	show := "ip -d link show br0 | grep -v index; brctl show; brctl showstp br0"
	if got, want := masked(told.Sh(t, show)), masked(done.Sh(t, show)); clean(got) != clean(want) {
		t.Errorf("the printed commands make\n%s\nthe tool makes\n%s", got, want)
	}
}

// clean takes out the counters and indexes of ip -d link show.
func clean(text string) string {
	return regexp.MustCompile(`_timer +\d+\.\d\d|^\d+: |link/ether \S+`).ReplaceAllString(text, "")
}

func TestWho(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, links+"\nip link add br0 type bridge; ip link set v1 master br0")
	var out strings.Builder
	tool := brctl.Tool{Host: m.Host(), Out: &out, Err: &out, Who: func(link string) string { return "web eth0 via " + link }}
	if code := tool.Run(t.Context(), []string{"show"}); code != 0 || !strings.Contains(out.String(), "v1\tweb eth0 via v1\n") {
		t.Errorf("exit status %d, output:\n%s", code, out.String())
	}
}

// Scripts look at the version before they use a command; ours is that of the
// dialect.
func TestVersion(t *testing.T) {
	for _, flag := range []string{"-V", "--version"} {
		var out strings.Builder
		if code := (brctl.Tool{Out: &out}).Run(t.Context(), []string{flag}); code != 0 || out.String() != "bridge-utils, 1.7\n" {
			t.Errorf("brctl %s: %q, exit status %d", flag, &out, code)
		}
	}
}
