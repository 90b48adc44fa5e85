package overlay_test

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

// record is a network with both families; options are "key=value".
func record(options ...string) network.Network {
	n := network.Network{
		ID: linkspan.ID(strings.Repeat("1", 64)), Name: "far", IPv4: true, IPv6: true, MAC: "02:42:0a:4d:00:01", VNI: 4100, Options: map[string]string{},
		Pools: []ipam.Pool{
			{Subnet: prefix("10.77.0.0/24"), Gateway: addr("10.77.0.1")},
			{Subnet: prefix("2001:db8:77::/64"), Gateway: addr("2001:db8:77::1")},
		},
	}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		n.Options[key] = value
	}
	return n
}

func TestPlans(t *testing.T) {
	d := overlay.Driver{VTEP: addr("192.0.2.1"), MTU: 9000}
	peers := []drivers.Peer{
		{Addresses: []netip.Addr{addr("10.77.0.3"), addr("2001:db8:77::3")}, MAC: "02:42:0A:4d:00:03", VTEP: addr("192.0.2.2")},
		{Addresses: []netip.Addr{addr("10.77.0.4")}, MAC: "02:42:0a:4d:00:04", VTEP: addr("192.0.2.3")},
	}
	four := record(network.OptionMTU+"=1400", overlay.OptionPort+"=8472", overlay.OptionEncrypted+"=false")
	four.IPv6, four.Pools, four.Internal = false, four.Pools[:1], true
	for name, plan := range map[string]func() (op.Plan, error){
		"network":  func() (op.Plan, error) { return d.Network(record()) },
		"internal": func() (op.Plan, error) { return d.Network(four) },
		"example": func() (op.Plan, error) {
			n := record()
			n.VNI = 0
			return overlay.Driver{}.Network(n)
		},
		"peers": func() (op.Plan, error) { return d.Peers(record(), peers) },
	} {
		t.Run(name, func(t *testing.T) {
			got, err := plan()
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("the plan changed (-want +got; -update writes it anew):\n%s", diff)
			}
		})
	}
	if fewer, err := d.Peers(record(), peers[1:]); err != nil || !strings.HasSuffix(mustPeers(t, d, peers).String(), fewer.String()) {
		t.Errorf("the plan of fewer peers is another one (%v):\n%s", err, fewer)
	}
	if _, err := d.Peers(record(), []drivers.Peer{{MAC: "none"}}); err == nil {
		t.Error("a peer without a MAC was planned for")
	}
	n := record()
	n.VNI = 0
	if _, err := d.Network(n); err == nil || !strings.Contains(err.Error(), "no VNI provided") {
		t.Errorf("a network without a number: %v", err)
	}
}

func mustPeers(t *testing.T, d overlay.Driver, peers []drivers.Peer) op.Plan {
	t.Helper()
	plan, err := d.Peers(record(), peers)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// A host whose uplink passes frames of 1,500 bytes refuses what does not fit it.
func TestRefusals(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, uplink)
	defer m.Sh(t, unuplink)
	four, six := overlay.Driver{VTEP: addr("192.0.2.1"), MTU: 1500}, overlay.Driver{VTEP: addr("2001:db8:2::1"), MTU: 1500}
	mtu := network.OptionMTU + "="
	for _, test := range []struct {
		driver overlay.Driver
		option string
		want   string
		kind   error
	}{
		{driver: four},
		{driver: six},
		{driver: four, option: overlay.OptionPort + "=1024"},
		{driver: four, option: overlay.OptionPort + "=65535"},
		{driver: four, option: overlay.OptionNumbers + "=1,16777215"},
		{driver: four, option: overlay.OptionEncrypted + "=false"},
		{driver: four, option: mtu + "1450"},
		{driver: six, option: mtu + "1430"},
		{driver: four, option: "some.other=option"},
		{four, overlay.OptionPort + "=1023", "VXLAN UDP port number is not in valid range (1024-65535): 1023", linkspan.ErrInvalid},
		{four, overlay.OptionPort + "=65536", "VXLAN UDP port number is not in valid range (1024-65535): 65536", linkspan.ErrInvalid},
		{four, overlay.OptionPort + "=http", "VXLAN UDP port number is not in valid range (1024-65535): http", linkspan.ErrInvalid},
		{four, overlay.OptionNumbers + "=0", `invalid vxlan id value "0" passed`, linkspan.ErrInvalid},
		{four, overlay.OptionNumbers + "=256,many", `invalid vxlan id value "many" passed`, linkspan.ErrInvalid},
		{four, overlay.OptionNumbers + "=16777216", `invalid vxlan id value "16777216" passed`, linkspan.ErrInvalid},
		{four, overlay.OptionNumbers + "=256,", `invalid vxlan id value "" passed`, linkspan.ErrInvalid},
		{four, overlay.OptionEncrypted + "=", "option encrypted is refused", linkspan.ErrUnsupported},
		{four, overlay.OptionEncrypted + "=true", "option encrypted is refused", linkspan.ErrUnsupported},
		{four, mtu + "many", "invalid MTU value: many", linkspan.ErrInvalid},
		{four, mtu + "-1", "invalid MTU value: -1", linkspan.ErrInvalid},
		{four, mtu + "1279", "invalid MTU value: 1279: IPv6 needs at least 1280", linkspan.ErrInvalid},
		{four, mtu + "1451", "invalid MTU value: 1451: at most 1450 bytes fit, since tunnels leave by link u0, whose MTU is 1500, and add 50 to each packet", linkspan.ErrInvalid},
		{six, mtu + "1431", "at most 1430 bytes fit, since tunnels leave by link u0, whose MTU is 1500, and add 70", linkspan.ErrInvalid},
		{overlay.Driver{}, "", "this host is in no cluster", linkspan.ErrUnavailable},
		{overlay.Driver{VTEP: addr("192.0.2.9")}, "", "no link of this host has address 192.0.2.9", linkspan.ErrUnavailable},
	} {
		err := test.driver.Check(t.Context(), m.Host(), record(strings.Fields(test.option)...))
		if test.want == "" {
			if err != nil {
				t.Errorf("%s over %s: %v", test.option, test.driver.VTEP, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, test.kind) {
			t.Errorf("%s over %s: %v; want %q", test.option, test.driver.VTEP, err, test.want)
		}
	}
	many := record()
	many.Pools = append(many.Pools, ipam.Pool{Subnet: prefix("10.78.0.0/24")})
	if err := four.Check(t.Context(), m.Host(), many); err == nil || !strings.Contains(err.Error(), "multiple subnets") {
		t.Errorf("two subnets of a family: %v", err)
	}
}

// The packets of the containers are as large as the uplink's allow.
func TestPacketSize(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, uplink+"; ip addr add 192.0.2.99/32 dev lo; ip link set u0 mtu 9000; ip link set u1 mtu 4000")
	defer m.Sh(t, unuplink)
	for vtep, want := range map[string]string{"192.0.2.1": "mtu 8950", "2001:db8:2::1": "mtu 8930", "192.0.2.99": "mtu 3950"} {
		d, err := overlay.At(m.Host(), addr(vtep))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := d.Network(record())
		if err != nil || strings.Count(plan.String(), want) != 2 {
			t.Errorf("over %s: want %s at the bridge and the tunnel device (%v):\n%s", vtep, want, err, plan)
		}
	}
	if _, err := overlay.At(m.Host(), addr("192.0.2.77")); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("an address that the host does not have: %v", err)
	}
}

func TestAdapt(t *testing.T) {
	n := record(overlay.OptionNumbers + "=256,257")
	n.VNI = 0
	if got, err := (overlay.Driver{}).Adapt(n); err != nil || got.VNI != 256 {
		t.Errorf("a number that the user names became %d (%v)", got.VNI, err)
	}
	if got, err := (overlay.Driver{}).Adapt(record()); err != nil || got.VNI != 4100 {
		t.Errorf("a number that the cluster gave became %d (%v)", got.VNI, err)
	}
}

func TestRules(t *testing.T) {
	n := record()
	rules, err := overlay.Driver{}.Rules(n)
	want := firewall.Network{
		Bridge: "br-111111111111", Subnets: []netip.Prefix{prefix("10.77.0.0/24"), prefix("2001:db8:77::/64")},
		Masquerade: true, ICC: true, Mode4: firewall.NAT, Mode6: firewall.NAT,
	}
	if diff := cmp.Diff(want, rules, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	n.Internal = true
	if rules, err = (overlay.Driver{}).Rules(n); err != nil || rules.Masquerade || !rules.Internal {
		t.Errorf("of an internal network: %+v (%v)", rules, err)
	}
}
