package op_test

import (
	"net/netip"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// specimen is one op and the world around it.
type specimen struct {
	name  string
	setup string // what the op needs to be there
	op    op.Op
	said  string // its String
	again bool   // Do is content with what is there already
	keeps bool   // Undo has nothing to take back: the change dies with its link
	check string // what Check's complaint names, when the change is missing

	half    []string // ways to spoil what Do did, after which Undo must still clear up
	foreign string   // something of that name that is not ours, in place of the setup
	spared  bool     // Undo passes over the foreign thing without a word
}

func specimens() []specimen { return append(plainSpecimens(), tunnelSpecimens()...) }

func plainSpecimens() []specimen {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	return []specimen{
		{
			name: "pinned neighbour", setup: withUp, op: op.PinNeighbour{NS: "box", Link: "eth0", Address: addr("10.77.0.9"), MAC: macBridge},
			said: "ip -n box neigh replace 10.77.0.9 lladdr 02:42:0a:4d:00:01 dev eth0 nud permanent", again: true, check: "10.77.0.9",
		},
		{
			name: "bridge", op: op.AddBridge{Name: "br0", MAC: macBridge},
			said: "ip link add name br0 address 02:42:0a:4d:00:01 group 27763 type bridge", check: "br0",
			half:    []string{"ip link set br0 up", "ip link set br0 address 02:00:00:00:00:07", "ip link add v0 group 27763 master br0 type veth peer name p0; ip link del v0"},
			foreign: "ip link add br0 type bridge; ip link set br0 up",
		},
		{
			name: "bridge with an MTU", op: op.AddBridge{Name: "br0", MAC: macBridge, MTU: 1400},
			said: "ip link add name br0 address 02:42:0a:4d:00:01 mtu 1400 group 27763 type bridge", check: "br0",
			foreign: "ip link add br0 type veth peer name p0",
		},
		{
			name: "veth", setup: withBox + withBridge,
			op:   op.AddVeth{Name: "v0", MAC: macNear, Master: "br0", Peer: "eth0", PeerMAC: macFar, PeerNS: "box", MTU: 1400},
			said: "ip link add name v0 address 02:42:0a:4d:00:02 mtu 1400 group 27763 master br0 type veth peer name eth0 address 02:42:0a:4d:00:03 mtu 1400 netns box", check: "v0",
			half:    []string{"ip link set v0 nomaster", "ip link set v0 up", "ip -n box link set eth0 up", "ip -n box link set eth0 name eth9", "ip -n box link del eth0"},
			foreign: withBox + withBridge + "ip link add v0 master br0 type veth peer name eth0 netns box",
		},
		{
			name: "veth without a bridge", setup: withBox,
			op:   op.AddVeth{Name: "v0", MAC: macNear, Peer: "eth0", PeerMAC: macFar, PeerNS: "box"},
			said: "ip link add name v0 address 02:42:0a:4d:00:02 group 27763 type veth peer name eth0 address 02:42:0a:4d:00:03 netns box", check: "v0",
			foreign: withBox + "ip link add v0 type bridge",
		},
		{
			name: "macvlan inside", setup: withParent, op: op.AddMacvlan{NS: "box", Name: "eth0", MAC: macFar, Parent: "v0", Mode: op.MacvlanBridge, MTU: 1400},
			said: "ip link add link v0 name eth0 netns box address 02:42:0a:4d:00:03 mtu 1400 group 27763 type macvlan mode bridge", check: "eth0",
			half:    []string{"ip -n box addr add 10.77.0.9/32 dev eth0", "ip link del v0; ip link add v0 address 02:42:0a:4d:00:02 type veth peer name p0 address 02:42:0a:4d:00:04"},
			foreign: withParent + "ip -n box link add eth0 type bridge",
		},
		{
			name: "macvlan of the host", setup: withParent, op: op.AddMacvlan{Name: "m0", MAC: macFar, Parent: "v0", Mode: op.MacvlanVEPA},
			said: "ip link add link v0 name m0 address 02:42:0a:4d:00:03 group 27763 type macvlan mode vepa", check: "m0",
			foreign: withParent + "ip link add m0 link v0 type macvlan mode bridge",
		},
		{
			name: "macvlan alone", setup: withParent, op: op.AddMacvlan{NS: "box", Name: "eth0", MAC: macFar, Parent: "v0", Mode: op.MacvlanPassthru},
			said:  "ip link add link v0 name eth0 netns box address 02:42:0a:4d:00:03 group 27763 type macvlan mode passthru\nip -n box link set eth0 address 02:42:0a:4d:00:03",
			check: "eth0", foreign: withParent + "ip -n box link add eth0 type bridge",
		},
		{
			name: "up", setup: withVeth, op: op.SetUp{Link: "v0"}, said: "ip link set v0 up", again: true, check: "v0",
			foreign: "ip link add v0 type bridge; ip link set v0 up",
		},
		{name: "up inside", setup: withVeth, op: op.SetUp{NS: "box", Link: "eth0"}, said: "ip -n box link set eth0 up", again: true, check: "eth0"},
		{name: "isolated", setup: withVeth, op: op.SetIsolated{Link: "v0"}, said: "bridge link set dev v0 isolated on", again: true, keeps: true, check: "v0"},
		{
			name: "MTU", setup: withBridge, op: op.SetMTU{Link: "br0", MTU: 1400, Was: 1500}, said: "ip link set br0 mtu 1400", again: true, check: "br0",
			half: []string{"ip link set br0 mtu 1300"}, foreign: "ip link add br0 type bridge",
		},
		{name: "MTU inside", setup: withVeth, op: op.SetMTU{NS: "box", Link: "eth0", MTU: 1400, Was: 1500}, said: "ip -n box link set eth0 mtu 1400", again: true, check: "eth0"},
		{
			name: "no address", setup: withBridge + "ip addr add 10.77.0.1/24 brd + dev br0; ", op: op.RemoveAddress{Added: op.AddAddress{Link: "br0", Address: prefix("10.77.0.1/24")}},
			said: "ip addr del 10.77.0.1/24 dev br0", again: true, check: "10.77.0.1/24",
		},
		{name: "not isolated", setup: withVeth + "bridge link set dev v0 isolated on; ", op: op.ClearIsolated{Link: "v0"}, said: "bridge link set dev v0 isolated off", again: true, check: "v0"},
		{
			name: "sysctl reset", setup: withBridge + "sysctl -qw net/ipv4/conf/br0/route_localnet=1; ", op: op.ResetSysctl{Key: "net/ipv4/conf/br0/route_localnet", Was: "1"},
			said: `sysctl -qw net/ipv4/conf/br0/route_localnet="$(sysctl -n net/ipv4/conf/default/route_localnet)"`, again: true, check: "net/ipv4/conf/br0/route_localnet",
		},
		{
			name: "plug in", setup: withBridge + "ip link add v0 address 02:42:0a:4d:00:02 type veth peer name eth0 address 02:42:0a:4d:00:03; ", op: op.PlugIn{Link: "v0", Bridge: "br0"},
			said: "ip link set v0 master br0", check: "v0", half: []string{"ip link set v0 nomaster"},
			foreign: withBridge + "ip link add br1 type bridge; ip link add v0 master br1 type veth peer name eth0; ", spared: true,
		},
		{
			name: "cable", setup: withBox + "ip netns add bax; ",
			op:   op.AddCable{NS: "box", Name: "eth0", MAC: macNear, PeerNS: "bax", Peer: "eth1", PeerMAC: macFar},
			said: "ip -n box link add name eth0 address 02:42:0a:4d:00:02 type veth peer name eth1 address 02:42:0a:4d:00:03 netns bax", keeps: true, check: "eth0",
		},
		{
			name: "bridge setting", setup: withBridge, op: op.SetBridge{Bridge: "br0", Setting: kernel.BridgeAgeingTime, Value: 5000, Before: 30000},
			said: "ip link set dev br0 type bridge ageing_time 5000", again: true, check: "br0",
		},
		{
			name: "bridge that listens to no groups", setup: withBridge, op: op.SetBridge{Bridge: "br0", Setting: kernel.BridgeSnooping, Before: 1},
			said: "ip link set dev br0 type bridge mcast_snooping 0", again: true, check: "br0",
		},
		{
			name: "bridge priority", setup: withBridge, op: op.SetBridge{Bridge: "br0", Setting: kernel.BridgePriority, Value: 4096, Before: 32768},
			said: "ip link set dev br0 type bridge priority 4096", again: true, check: "br0",
		},
		{
			name: "port setting", setup: withVeth, op: op.SetPort{Port: "v0", Setting: kernel.PortHairpin, Value: 1},
			said: "bridge link set dev v0 hairpin on", again: true, check: "v0",
		},
		{
			name: "port cost", setup: withVeth, op: op.SetPort{Port: "v0", Setting: kernel.PortCost, Value: 7, Before: 2},
			said: "bridge link set dev v0 cost 7", again: true, check: "v0",
		},
		{
			name: "address", setup: withUp, op: op.AddAddress{Link: "br0", Address: prefix("10.77.0.1/24")},
			said: "ip addr add 10.77.0.1/24 brd + dev br0", check: "10.77.0.1/24",
			foreign: "ip link add br0 type bridge; ip addr add 10.77.0.1/24 brd + dev br0", spared: true,
		},
		{
			name: "host address", setup: withUp, op: op.AddAddress{NS: "box", Link: "eth0", Address: prefix("10.77.0.9/32")},
			said: "ip -n box addr add 10.77.0.9/32 dev eth0", check: "10.77.0.9/32",
		},
		{
			name: "point to point address", setup: withUp, op: op.AddAddress{NS: "box", Link: "eth0", Address: prefix("10.77.0.8/31")},
			said: "ip -n box addr add 10.77.0.8/31 dev eth0", check: "10.77.0.8/31",
		},
		{
			name: "IPv6 address", setup: withUp, op: op.AddAddress{NS: "box", Link: "eth0", Address: prefix("2001:db8::2/64")},
			said: "ip -n box addr add 2001:db8::2/64 nodad dev eth0", check: "2001:db8::2/64",
		},
		{
			name: "default route", setup: withUp + "ip -n box addr add 10.77.0.2/24 brd + dev eth0",
			op:   op.AddRoute{NS: "box", To: prefix("0.0.0.0/0"), Via: addr("10.77.0.1"), Link: "eth0"},
			said: "ip -n box route add default via 10.77.0.1 dev eth0", check: "0.0.0.0/0",
		},
		{
			name: "route on a link", setup: withUp, op: op.AddRoute{NS: "box", To: prefix("192.0.2.0/24"), Link: "eth0"},
			said: "ip -n box route add 192.0.2.0/24 dev eth0", check: "192.0.2.0/24",
		},
		{
			name: "route on the host", setup: withUp, op: op.AddRoute{To: prefix("192.0.2.0/24"), Link: "br0"},
			said: "ip route add 192.0.2.0/24 dev br0", check: "192.0.2.0/24",
			foreign: "ip link add br0 type bridge; ip link set br0 up; ip route add 192.0.2.0/24 dev br0", spared: true,
		},
		{
			name: "IPv6 default route", setup: withUp + "ip -n box addr add 2001:db8::2/64 nodad dev eth0",
			op:   op.AddRoute{NS: "box", To: prefix("::/0"), Via: addr("2001:db8::1"), Link: "eth0"},
			said: "ip -n box -6 route add default via 2001:db8::1 dev eth0", check: "::/0",
		},
		{
			name: "IPv6 route on a link", setup: withUp, op: op.AddRoute{NS: "box", To: prefix("2001:db8:1::/48"), Link: "eth0"},
			said: "ip -n box -6 route add 2001:db8:1::/48 dev eth0", check: "2001:db8:1::/48",
		},
		{
			name: "namespace", op: op.AddNetns{Name: "bax"}, said: "ip netns add bax", check: "bax",
			half: []string{"umount /run/netns/bax", "ip -n bax link add inner type bridge"},
		},
		{
			name: "sysctl of the host", op: op.SetSysctl{Key: "net/ipv4/ip_forward", Value: "1", Was: "0"},
			said: "sysctl -qw net/ipv4/ip_forward=1", again: true, check: "net/ipv4/ip_forward",
		},
		{
			name: "sysctl inside", setup: withVeth, op: op.SetSysctl{NS: "box", Key: "net/ipv6/conf/eth0/disable_ipv6", Value: "1"},
			said: "nsenter --net=/run/netns/box sysctl -qw net/ipv6/conf/eth0/disable_ipv6=1", again: true, keeps: true, check: "net/ipv6/conf/eth0/disable_ipv6",
		},
		{
			name: "sysctl of several numbers", op: op.SetSysctl{Key: "net/ipv4/ping_group_range", Value: "0 2147483647", Was: "1\t0"},
			said: "sysctl -qw 'net/ipv4/ping_group_range=0 2147483647'", again: true, check: "net/ipv4/ping_group_range",
		},
		{
			name: "rate", setup: withUp, op: op.LimitRate{NS: "box", Link: "eth0", Rate: 1_000_000, Burst: 3200, Queue: 20_000},
			said:  "tc -n box qdisc add dev eth0 root handle 6c73: tbf rate 1000000bit burst 3200 limit 20000",
			check: "eth0", half: []string{"ip -n box link set eth0 down; ip -n box link set eth0 up", "tc -n box qdisc del dev eth0 root"},
			foreign: withUp + "tc -n box qdisc add dev eth0 root handle 1: tbf rate 1mbit burst 3200 limit 20000",
		},
		{
			name: "loss", setup: withUp, op: op.LoseFrames{Link: "v0", Loss: 50_000},
			said: `nft 'table netdev linkspan-loss-v0 { chain arriving { type filter hook ingress device "v0" priority 0; numgen random mod 1000000 < 50000 counter drop; }; }'`, check: "v0",
			half: []string{"nft flush table netdev linkspan-loss-v0", "nft delete table netdev linkspan-loss-v0"},
		},
		{
			name: "loss inside", setup: withUp, op: op.LoseFrames{NS: "box", Link: "eth0", Loss: 1},
			said:  `nsenter --net=/run/netns/box nft 'table netdev linkspan-loss-eth0 { chain arriving { type filter hook ingress device "eth0" priority 0; numgen random mod 1000000 < 1 counter drop; }; }'`,
			check: "eth0",
		},
		{
			name: "file", op: op.WriteFile{Path: "/run/work/c1/hosts", Text: "127.0.0.1\tlocalhost\nEOF\n$(false)\n"},
			said:  "mkdir -p /run/work/c1 && cat > /run/work/c1/hosts <<'EOF_'\n127.0.0.1\tlocalhost\nEOF\n$(false)\nEOF_",
			check: "/run/work/c1/hosts", half: []string{"echo edited > /run/work/c1/hosts"},
		},
	}
}
