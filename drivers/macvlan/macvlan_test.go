package macvlan_test

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/drivers/macvlan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

var update = flag.Bool("update", false, "write the golden files anew")

// patience is how long anything may take on a busy machine.
const patience = 20 * time.Second

func record(options ...string) network.Network {
	n := network.Network{
		ID: linkspan.ID(strings.Repeat("1", 64)), Name: "lan", IPv4: true, MAC: "02:42:0a:4d:00:01", Options: map[string]string{},
		Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("192.0.2.0/24"), Range: netip.MustParsePrefix("192.0.2.128/25"), Gateway: netip.MustParseAddr("192.0.2.1")}},
	}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		n.Options[key] = value
	}
	return n
}

func TestRefusals(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add p0 type veth peer name p1; ip link add lo2 type bridge")
	vlans, err := m.Host().KnowsKind("vlan")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		option, want string
		kind         error
	}{
		{"parent=p0", "", nil},
		{"parent=lo2", "", nil},
		{"parent=lo", "loopback interface is not a valid macvlan parent link", linkspan.ErrInvalid},
		{"parent=cfnone0", "-o parent interface was not found on the host: cfnone0", linkspan.ErrInvalid},
		{"parent=a name", "-o parent interface was not found on the host", linkspan.ErrInvalid},
		{"parent=a-name-of-more-than-15-bytes", "-o parent interface was not found on the host", linkspan.ErrInvalid},
		{"parent=none.10", "-o parent interface was not found on the host: none", linkspan.ErrInvalid},
		{"parent=p0.1.2", "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received p0.1.2", linkspan.ErrInvalid},
		{"parent=.10", "required interface name format is", linkspan.ErrInvalid},
		{"parent=p0.x", "unable to parse a valid vlan id from: p0.x (ex. eth0.10 for vlan 10)", linkspan.ErrInvalid},
		{"parent=p0.05", "unable to parse a valid vlan id from", linkspan.ErrInvalid},
		{"parent=p0.0", "vlan id must be between 1-4094, received: 0", linkspan.ErrInvalid},
		{"parent=p0.4095", "vlan id must be between 1-4094, received: 4095", linkspan.ErrInvalid},
		{"macvlan_mode=source", "requested macvlan mode 'source' is not valid, 'bridge' mode is the macvlan driver default", linkspan.ErrInvalid},
		{"linkspan.host_access=maybe", "failed to parse linkspan.host_access value: maybe", linkspan.ErrInvalid},
		{"linkspan.host_access=true", "needs macvlan_mode=bridge and a parent", linkspan.ErrInvalid},
		{"com.docker.network.driver.mtu=x", "failed to parse com.docker.network.driver.mtu value: x", linkspan.ErrInvalid},
		{"com.docker.network.driver.mtu=-1", "invalid MTU number: -1", linkspan.ErrInvalid},
	} {
		err := macvlan.Driver{}.Check(t.Context(), m.Host(), record(test.option))
		text := ""
		if err != nil {
			text = err.Error()
		}
		if !errors.Is(err, test.kind) || !strings.Contains(text, test.want) {
			t.Errorf("%s: %v, want %s", test.option, err, test.want)
		}
	}
	switch err := (macvlan.Driver{}).Check(t.Context(), m.Host(), record("parent=p0.50")); {
	case vlans && err != nil:
		t.Errorf("a VLAN where the kernel has them: %v", err)
	case !vlans && (!errors.Is(err, linkspan.ErrUnsupported) || !strings.Contains(err.Error(), "8021q")):
		t.Errorf("a VLAN where the kernel has none: %v", err)
	}
	empty := record("parent=p0")
	empty.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix("0.0.0.0/0")}}
	if err := (macvlan.Driver{}).Check(t.Context(), m.Host(), empty); !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), "ipv4 pool is empty") {
		t.Errorf("no addresses: %v", err)
	}
	m.Sh(t, "ip link del p0; ip link del lo2")
}

func TestIPvlanRefusals(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add p0 type veth peer name p1")
	known, err := m.Host().KnowsKind("ipvlan")
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[string]string{
		"ipvlan_mode=l4":            "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default",
		"ipvlan_flag=none":          "requested ipvlan flag 'none' is not valid, 'bridge' is the ipvlan driver default",
		"parent=lo":                 "loopback interface",
		"linkspan.host_access=true": "networks of kind macvlan",
	} {
		if err := (macvlan.IPvlan{}).Check(t.Context(), m.Host(), record(option)); !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", option, err, want)
		}
	}
	switch err := (macvlan.IPvlan{}).Check(t.Context(), m.Host(), record("parent=p0")); {
	case known && err != nil:
		t.Errorf("where the kernel has ipvlan: %v", err)
	case !known && (!errors.Is(err, linkspan.ErrUnsupported) || !strings.Contains(err.Error(), "modprobe ipvlan")):
		t.Errorf("where the kernel has no ipvlan: %v", err)
	}
	m.Sh(t, "ip link del p0")
}

func TestBeside(t *testing.T) {
	for _, test := range []struct {
		driver   drivers.Neighbour
		n, other string
		want     string
	}{
		{macvlan.Driver{}, "parent=p0", "parent=p0", ""},
		{macvlan.Driver{}, "parent=p0", "parent=p1 macvlan_mode=passthru", ""},
		{macvlan.Driver{}, "parent=p0 macvlan_mode=passthru", "parent=p0", "cannot use mode passthru, macvlan network 111"},
		{macvlan.Driver{}, "parent=p0", "parent=p0 macvlan_mode=passthru", "is already using parent interface p0 in mode passthru"},
		{macvlan.IPvlan{}, "parent=p0", "parent=p1", ""},
		{macvlan.IPvlan{}, "parent=p0", "parent=p0", "is already using parent interface p0"},
	} {
		err := test.driver.Beside(record(strings.Fields(test.n)...), record(strings.Fields(test.other)...))
		if text := fmt.Sprint(err); test.want == "" && err != nil || !strings.Contains(text, test.want) || err != nil && !errors.Is(err, linkspan.ErrForbidden) {
			t.Errorf("%s beside %s: %v, want %s", test.n, test.other, err, test.want)
		}
	}
}

func TestAdapt(t *testing.T) {
	n, err := macvlan.Driver{}.Adapt(record())
	if err != nil || !n.Internal {
		t.Errorf("without a parent: internal is %v (%v)", n.Internal, err)
	}
	asked := record("parent=p0", "linkspan.host_access=true")
	n, err = macvlan.Driver{}.Adapt(asked)
	if err != nil || n.Internal || n.Pools[0].Aux[macvlan.AuxHost].String() != "192.0.2.128" || asked.Pools[0].Aux != nil {
		t.Errorf("access for the host: %+v (%v), the record asked for: %+v", n.Pools, err, asked.Pools)
	}
	asked.Pools[0].Aux = map[string]netip.Addr{macvlan.AuxHost: netip.MustParseAddr("192.0.2.9")}
	if n, err = (macvlan.Driver{}).Adapt(asked); err != nil || n.Pools[0].Aux[macvlan.AuxHost].String() != "192.0.2.9" {
		t.Errorf("an address of the user's for the host: %+v (%v)", n.Pools, err)
	}
	if n, err = (macvlan.IPvlan{}).Adapt(record("parent=p0", "ipvlan_mode=l3")); err != nil || n.Pools[0].Gateway.IsValid() {
		t.Errorf("a gateway in mode l3: %+v (%v)", n.Pools, err)
	}
}

// What kernels may lack is planned all the same.
func TestPlans(t *testing.T) {
	vlan := record("parent=eth1.50")
	ipvlan := record("parent=eth1", "ipvlan_mode=l3", "ipvlan_flag=private")
	for name, test := range map[string]struct {
		driver drivers.Driver
		n      network.Network
	}{"vlan": {macvlan.Driver{}, vlan}, "ipvlan": {macvlan.IPvlan{}, ipvlan}} {
		t.Run(name, func(t *testing.T) {
			f := driverstest.Local(test.driver, nil, true)
			f.Endpoints[0].MAC = ""
			if name == "vlan" {
				f.Endpoints[0].MAC = "02:42:0a:4d:00:0a"
			}
			var plan op.Plan
			made, err := test.driver.Network(test.n)
			if err != nil {
				t.Fatal(err)
			}
			attached, err := test.driver.Endpoint(test.n, f.Endpoints[0], f.Sandboxes[0])
			if err != nil {
				t.Fatal(err)
			}
			configured := f.Endpoints[0].Configure(f.Sandboxes[0].Netns()) // package endpoint's part, told there
			plan = append(append(plan, made...), attached[0])
			plan = append(plan, attached[1+len(configured):]...)
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(plan.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), plan.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// lan is two machines on one wire, of which one has containers on it.
type lan struct {
	host, far *nstest.Machine
	wire      string
}

func newLAN(t *testing.T) lan {
	l := lan{host: nstest.New(t), far: nstest.New(t)}
	l.wire = nstest.Wire(t, l.host, l.far, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	t.Cleanup(func() { l.host.Sh(t, "ip link del "+l.wire) })
	return l
}

func (l lan) reaches(t *testing.T, from, to string, want bool) {
	t.Helper()
	var out string
	got := nstest.Until(patience, func() bool {
		var err error
		out, err = l.host.TrySh(fmt.Sprintf("nsenter --net=%s ping -n -c1 -W1 %s", kernel.Pin(from), to))
		return (err == nil) == want
	})
	if !got {
		t.Errorf("an echo from %s to %s is not as wanted (%v):\n%s", from, to, want, out)
	}
}

// The whole network is on the wire; the host alone hears nothing, unless it
// has access.
func TestOnTheWire(t *testing.T) {
	for _, access := range []bool{false, true} {
		t.Run(fmt.Sprint("access for the host is ", access), func(t *testing.T) {
			l := newLAN(t)
			x := op.Executor{Host: l.host.Host()}
			before := l.host.Dump(t)
			f := driverstest.Local(macvlan.Driver{}, map[string]string{"parent": l.wire, "linkspan.host_access": fmt.Sprint(access)}, false)
			f.Network.Pools[0] = record().Pools[0]
			n, err := macvlan.Driver{}.Adapt(f.Network)
			if err != nil {
				t.Fatal(err)
			}
			var plan op.Plan
			made, err := macvlan.Driver{}.Network(n)
			if err != nil {
				t.Fatal(err)
			}
			plan = append(plan, made...)
			for i, s := range f.Sandboxes {
				f.Endpoints[i].IPv4 = netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", 130+i))
				attached, err := macvlan.Driver{}.Endpoint(n, f.Endpoints[i], s)
				if err != nil {
					t.Fatal(err)
				}
				plan = append(plan, op.Step{Op: op.AddNetns{Name: s.Netns()}})
				plan = append(plan, attached...)
			}
			if err := x.Do(t.Context(), plan); err != nil {
				t.Fatal(err)
			}
			a, b := f.Sandboxes[0].Netns(), f.Sandboxes[1].Netns()
			l.reaches(t, a, "192.0.2.131", true)
			l.reaches(t, b, "192.0.2.2", true)
			l.reaches(t, l.far.Name(), "192.0.2.130", true)
			l.reaches(t, l.host.Name(), "192.0.2.2", true)
			l.reaches(t, l.host.Name(), "192.0.2.130", access)
			l.reaches(t, a, "192.0.2.1", access)
			if access {
				l.reaches(t, a, "192.0.2.128", true)
			}
			if err := x.Undo(t.Context(), plan); err != nil {
				t.Error(err)
			}
			if diff := nstest.Diff(before, l.host.Dump(t)); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
}

// In mode passthru there is one container, with the wire to itself, and as soon
// as it leaves the next one may come. The parent gets its own MAC back.
func TestPassthru(t *testing.T) {
	l := newLAN(t)
	x := op.Executor{Host: l.host.Host()}
	before := l.host.Dump(t)
	f := driverstest.Local(macvlan.Driver{}, map[string]string{"parent": l.wire, "macvlan_mode": "passthru"}, false)
	var plans [2]op.Plan
	for i, s := range f.Sandboxes {
		f.Endpoints[i].IPv4 = netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", 130+i))
		attached, err := macvlan.Driver{}.Endpoint(f.Network, f.Endpoints[i], s)
		if err != nil {
			t.Fatal(err)
		}
		plans[i] = append(op.Plan{{Op: op.AddNetns{Name: s.Netns()}}}, attached...)
	}
	for i, plan := range plans {
		if err := x.Do(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		if err := x.Check(t.Context(), plan); err != nil {
			t.Errorf("Check after Do: %v", err)
		}
		l.reaches(t, f.Sandboxes[i].Netns(), "192.0.2.2", true)
		if err := x.Do(t.Context(), plans[1-i]); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "passthru") {
			t.Errorf("a second container: %v", err)
		}
		if err := x.Undo(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
	}
	if diff := nstest.Diff(before, l.host.Dump(t)); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}
