package kernel_test

import (
	"slices"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
)

func routesOf(t *testing.T, m *nstest.Machine) []string {
	t.Helper()
	routes, err := m.Host().Routes()
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, r := range routes {
		if r.To.Addr().Is6() && r.To.Addr().IsLinkLocalUnicast() {
			continue
		}
		words = append(words, r.To.String()+" "+r.Link)
	}
	slices.Sort(words)
	return words
}

// What ip(8) changes is seen at the next call, in both families, whether it was
// there at the first one or not.
func TestRoutesFollowTheHost(t *testing.T) {
	m := nstest.New(t)
	for _, step := range []struct {
		do   string
		want []string
	}{
		{"ip link add lan type bridge; ip link set lan up; ip addr add 10.1.0.1/24 dev lan", []string{"10.1.0.0/24 lan"}},
		{"ip route add 10.2.0.0/16 dev lan; ip route add 10.3.0.0/16 via 10.1.0.9", []string{"10.1.0.0/24 lan", "10.2.0.0/16 lan"}},
		{"ip -6 route add fd00:7::/64 dev lan", []string{"10.1.0.0/24 lan", "10.2.0.0/16 lan", "fd00:7::/64 lan"}},
		{"ip route del 10.2.0.0/16", []string{"10.1.0.0/24 lan", "fd00:7::/64 lan"}},
		{"ip link add ours group 27763 type bridge; ip link set ours up; ip addr add 10.8.0.1/24 dev ours", []string{"10.1.0.0/24 lan", "fd00:7::/64 lan"}},
		{"ip route add 10.9.0.0/24 dev lan table 100; ip route add blackhole 10.10.0.0/16", []string{"10.1.0.0/24 lan", "fd00:7::/64 lan"}},
		{"ip link set lan name wan", []string{"10.1.0.0/24 wan", "fd00:7::/64 wan"}},
		{"ip link set wan down", nil},
		{"ip link set wan up", []string{"10.1.0.0/24 wan"}},
		{"ip link del wan; ip link del ours", nil},
	} {
		m.Sh(t, step.do)
		if got := routesOf(t, m); !slices.Equal(got, step.want) {
			t.Errorf("after %q: %q, want %q", step.do, got, step.want)
		}
	}
	m.Sh(t, "ip route flush table 100; ip route del blackhole 10.10.0.0/16")
}

// More changes than the socket holds reports of: the routes are dumped anew.
func TestRoutesAfterLostReports(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add lan type bridge; ip link set lan up; ip addr add 10.1.0.1/24 dev lan")
	if got := routesOf(t, m); len(got) != 1 {
		t.Fatalf("routes: %q", got)
	}
	m.Sh(t, `for i in $(seq 0 19); do for j in $(seq 0 199); do echo "route add 10.$((100+i)).$j.0/24 dev lan"; done; done | ip -batch -`)
	if got := routesOf(t, m); len(got) != 4001 {
		t.Errorf("%d routes, want 4001", len(got))
	}
	m.Sh(t, "ip link del lan")
	if got := routesOf(t, m); len(got) != 0 {
		t.Errorf("routes of a link that is gone: %q", got[:1])
	}
}
