package driverstest

import (
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Fixture is a driver and the records to plan for: a network and two sandboxes
// with an endpoint each.
type Fixture struct {
	Driver    drivers.Driver
	Network   network.Network
	Endpoints [2]endpoint.Endpoint
	Sandboxes [2]sandbox.Sandbox // without Dir: Run chooses one

	// Codec stores the plans; nil stands for one that knows package op alone.
	Codec *op.Codec

	// Setup is what a machine needs before, as a script: the parent link of a
	// macvlan network, say. Teardown takes it back.
	Setup, Teardown string

	// Others is how the names of links begin that the plan has somebody else make,
	// such as a plugin: what is in their way is theirs to notice.
	Others string

	// Apart says that frames must not pass between the endpoints.
	Apart bool
}

// Local returns a fixture for a driver of scope local, with records as the
// controller would fill them in: 10.77.0.0/24 and, if IPv6 is wanted,
// 2001:db8:77::/64, as far as the driver's traits ask for addresses.
func Local(d drivers.Driver, options map[string]string, ipv6 bool) Fixture {
	traits := d.Traits()
	f := Fixture{Driver: d, Network: network.Network{
		ID: id("1"), Name: "lab", Driver: "test", Scope: traits.Scope, Options: maps.Clone(options),
		IPv4: true, IPv6: ipv6, MAC: "02:42:0a:4d:00:01",
	}}
	subnets := []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}
	if ipv6 {
		subnets = append(subnets, netip.MustParsePrefix("2001:db8:77::/64"))
	}
	for _, subnet := range subnets {
		if !traits.Addresses {
			break
		}
		pool := ipam.Pool{Subnet: subnet}
		if traits.Gateway {
			pool.Gateway = subnet.Addr().Next()
		}
		f.Network.Pools = append(f.Network.Pools, pool)
	}
	for i := range f.Endpoints {
		digit := string("ab"[i])
		e := endpoint.Endpoint{
			ID: id(digit), Network: f.Network.ID, Sandbox: id("5" + digit), Owner: id("7" + digit), Name: "c" + digit,
			MAC: "02:42:0a:4d:00:0" + digit, HostMAC: "02:42:0a:4d:01:0" + digit, Interface: "eth0",
		}
		for _, pool := range f.Network.Pools {
			lease := pool.Subnet.Addr().Next().Next()
			for range i {
				lease = lease.Next()
			}
			if lease.Is4() {
				e.IPv4, e.Gateway4 = netip.PrefixFrom(lease, pool.Subnet.Bits()), pool.Gateway
			} else {
				e.IPv6, e.Gateway6 = netip.PrefixFrom(lease, pool.Subnet.Bits()), pool.Gateway
			}
		}
		f.Sandboxes[i] = sandbox.Sandbox{ID: e.Sandbox, Owner: e.Owner, OfHost: traits.Borrows == drivers.Host}
		if traits.Borrows == drivers.Container {
			f.Sandboxes[i], e.Sandbox = f.Sandboxes[0], f.Sandboxes[0].ID
		}
		f.Endpoints[i] = e
	}
	return f
}

// namespaces are those that the plans make.
func (f Fixture) namespaces() []string {
	var names []string
	for _, s := range f.Sandboxes {
		if !s.OfHost && !slices.Contains(names, s.Netns()) {
			names = append(names, s.Netns())
		}
	}
	return names
}

// id repeats digits to the length of an ID.
func id(digits string) linkspan.ID { return linkspan.ID(strings.Repeat(digits, 64/len(digits))) }

// plans are the plans of a fixture, and a place for its files.
type plans struct {
	dir       string
	network   op.Plan
	endpoints [2]op.Plan // with the sandbox of each
}

// whole is everything as one plan.
func (p plans) whole() op.Plan {
	plan := append(op.Plan(nil), p.network...)
	for _, endpoint := range p.endpoints {
		plan = append(plan, endpoint...)
	}
	return plan
}

func (f Fixture) plan(t *testing.T, dir string) plans {
	t.Helper()
	p := plans{dir: dir}
	var err error
	if p.network, err = f.Driver.Network(f.Network); err != nil {
		t.Fatalf("planning the network: %v", err)
	}
	for i, s := range f.Sandboxes {
		if s.Dir == "" {
			s.Dir = filepath.Join(dir, string(s.ID.Short()))
		}
		files := sandbox.Files{Hosts: "127.0.0.1\tlocalhost\n", ResolvConf: "nameserver 127.0.0.11\n", Hostname: f.Endpoints[i].Name + "\n"}
		switch {
		case s.OfHost:
			p.endpoints[i] = s.FilesPlan(files)
		case i == 0 || s.ID != f.Sandboxes[0].ID:
			p.endpoints[i] = s.Plan(files)
		}
		plan, err := f.Driver.Endpoint(f.Network, f.Endpoints[i], s)
		if err != nil {
			t.Fatalf("planning endpoint %d: %v", i, err)
		}
		p.endpoints[i] = append(p.endpoints[i], plan...)
	}
	return p
}
