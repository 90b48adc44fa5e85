package remote_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/drivers/remote"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/sandbox"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var update = flag.Bool("update", false, "write the golden files anew")

func plugins(t *testing.T, sockets string) *remote.Plugins {
	t.Helper()
	p := &remote.Plugins{Logf: t.Logf, Directory: plugin.NewDirectory(plugin.Options{Sockets: []string{sockets}, Specs: []string{}, Logf: t.Logf})}
	t.Cleanup(p.Close)
	return p
}

// prophet is the driver of a plugin whose answers are known beforehand, so that a
// plan can be had in one piece.
type prophet struct{ remote.Driver }

func (p prophet) Endpoint(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox) (op.Plan, error) {
	asked, err := p.Driver.Endpoint(n, e, s)
	if err != nil {
		return nil, err
	}
	answered := slices.Clone(asked)
	join := answered[1].Op.(remote.Join) //nolint:forcetypeassert // that is how an endpoint is asked for
	join.Answer = &wire.JoinResponse{
		InterfaceName: &wire.InterfaceName{SrcName: "tpf" + e.ID.Prefix(8), DstPrefix: "eth"}, Gateway: e.Gateway4.String(),
		StaticRoutes: []wire.StaticRoute{
			{Destination: "10.90.0.0/24", RouteType: wire.RouteConnected},
			{Destination: "10.91.0.0/24", RouteType: wire.RouteNextHop, NextHop: "10.90.0.7"},
		},
	}
	if e.Gateway6.IsValid() {
		join.Answer.GatewayIPv6 = e.Gateway6.String()
	}
	answered[1].Op = join
	_, rest, err := p.Answered(n, e, s, answered, func(prefix string) string { return prefix + "0" })
	return append(asked, rest...), err
}

// The driver keeps its contract with a plugin that is a process of its own, on
// the machine where the plan is carried out.
func TestConformance(t *testing.T) {
	const sockets = plugin.DockerSockets // of the test's own /run
	if err := os.MkdirAll(sockets, 0o755); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("testdata/plugin.py")
	if err != nil {
		t.Fatal(err)
	}
	p := plugins(t, sockets)
	socket, pid := filepath.Join(sockets, "lab.sock"), filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(pid, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := driverstest.Local(prophet{remote.Driver{Name: "lab", Plugins: p}}, map[string]string{"colour": "blue"}, true)
	f.Codec = op.NewCodec(remote.Kinds(p))
	f.Others = "tp"
	f.Setup = "python3 " + script + " " + socket + " >/dev/null 2>&1 & echo $! > " + pid + "; while ! test -S " + socket + "; do sleep 0.02; done"
	f.Teardown = "read p < " + pid + " && kill $p && while test -d /proc/$p; do sleep 0.02; done; : > " + pid + "; rm -f " + socket
	driverstest.Run(t, f)
}

// What a plan says, against what it said when somebody read it last.
func TestPlans(t *testing.T) {
	p := plugins(t, t.TempDir())
	d := prophet{remote.Driver{Name: "lab", Plugins: p}}
	f := driverstest.Local(d, map[string]string{"colour": "blue"}, true)
	f.Network.Labels, f.Network.Internal = map[string]string{"tier": "back"}, true
	e, s := f.Endpoints[0], f.Sandboxes[0]
	e.Config = endpoint.Config{MAC: e.MAC, Options: map[string]string{"speed": "fast", endpoint.OptionInterface: "eth0"}}
	s.Container = sandbox.Container{
		Labels: map[string]string{"app": "shop"}, Exposed: []string{"80/tcp", "53/udp"}, Servers: []string{"10.0.0.53"},
		Publish: []sandbox.Wish{{Protocol: "tcp", Port: 80, Count: 1, First: 8080, Last: 8080, Host: netip.MustParseAddr("192.0.2.1")}},
	}
	made, err := d.Network(f.Network)
	if err != nil {
		t.Fatal(err)
	}
	attached, err := d.Endpoint(f.Network, e, s)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "endpoint", slices.Concat(made, attached, d.Outward(f.Network, e, s)))

	addresses := remote.Addresses{Name: "pool-keeper", Plugins: p}
	n := network.Network{ID: f.Network.ID, Name: "lab", IPv4: true, IPAMOptions: map[string]string{"vrf": "red"}, Pools: []ipam.Pool{{
		Subnet: netip.MustParsePrefix("10.77.0.0/24"), Range: netip.MustParsePrefix("10.77.0.128/25"), Aux: map[string]netip.Addr{"router": netip.MustParseAddr("10.77.0.5")},
	}}}
	_, asked, err := addresses.Network(n, []string{"10.0.0.0/16"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := asked[0].Op.(remote.RequestPool) //nolint:forcetypeassert // that is how a pool is asked for
	pool.Answer = &remote.LeasedPool{AddressSpace: "here", RequestPoolResponse: wire.RequestPoolResponse{PoolID: "p1", Pool: "10.77.0.0/24"}}
	asked[0].Op = pool
	leased, reserved, err := addresses.Network(n, nil, asked)
	if err != nil {
		t.Fatal(err)
	}
	_, lease, err := addresses.Endpoint(leased, e, nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "addresses", slices.Concat(asked, reserved, lease))
}

func golden(t *testing.T, name string, plan op.Plan) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(plan.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), plan.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// Answers that make no sense are refused with the field's name.
func TestAnswersAreJudged(t *testing.T) {
	p := plugins(t, t.TempDir())
	d := remote.Driver{Name: "lab", Plugins: p}
	f := driverstest.Local(d, nil, false)
	asked, err := d.Endpoint(f.Network, f.Endpoints[0], f.Sandboxes[0])
	if err != nil {
		t.Fatal(err)
	}
	link := &wire.InterfaceName{SrcName: "lab7", DstPrefix: "eth"}
	for _, test := range []struct {
		answer wire.JoinResponse
		want   string // "": it is accepted
	}{
		{wire.JoinResponse{}, ""},
		{wire.JoinResponse{InterfaceName: &wire.InterfaceName{DstPrefix: "eth"}}, ""},
		{wire.JoinResponse{InterfaceName: link, Gateway: "10.77.0.1", GatewayIPv6: "fe80::1"}, ""},
		{wire.JoinResponse{InterfaceName: link, StaticRoutes: []wire.StaticRoute{{Destination: "10.1.2.3/8", RouteType: 1}}}, ""},
		{wire.JoinResponse{InterfaceName: &wire.InterfaceName{SrcName: "a/b", DstPrefix: "eth"}}, "InterfaceName"},
		{wire.JoinResponse{InterfaceName: &wire.InterfaceName{SrcName: "sixteen-letters-", DstPrefix: "eth"}}, "InterfaceName"},
		{wire.JoinResponse{InterfaceName: &wire.InterfaceName{SrcName: "lab7", DstPrefix: "fifteen-letters"}}, "InterfaceName"},
		{wire.JoinResponse{InterfaceName: link, Gateway: "10.77.0.1/24"}, `unable to parse Gateway "10.77.0.1/24"`},
		{wire.JoinResponse{InterfaceName: link, Gateway: "fe80::1"}, "unable to parse Gateway"},
		{wire.JoinResponse{InterfaceName: link, GatewayIPv6: "10.77.0.1"}, "unable to parse GatewayIPv6"},
		{wire.JoinResponse{InterfaceName: link, StaticRoutes: []wire.StaticRoute{{Destination: "10.1.0.0"}}}, "failed to parse destination"},
		{wire.JoinResponse{InterfaceName: link, StaticRoutes: []wire.StaticRoute{{Destination: "10.1.0.0/16"}}}, "failed to parse nexthop IP"},
		{wire.JoinResponse{InterfaceName: link, StaticRoutes: []wire.StaticRoute{{Destination: "10.1.0.0/16", NextHop: "fe80::1"}}}, "failed to parse nexthop IP"},
		{wire.JoinResponse{Gateway: "10.77.0.1"}, "no interface for them"},
	} {
		answered := slices.Clone(asked)
		join := answered[1].Op.(remote.Join) //nolint:forcetypeassert // that is how an endpoint is asked for
		join.Answer = &test.answer
		answered[1].Op = join
		_, _, err := d.Answered(f.Network, f.Endpoints[0], f.Sandboxes[0], answered, func(prefix string) string { return prefix + "0" })
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v, want %q", test.answer, err, test.want)
		}
	}
}
