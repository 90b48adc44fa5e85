// Package network holds the record of a network: the switch of the Container
// Network Model.
//
// What makes a network is a name and a pool of addresses; what carries its
// frames is the business of its driver. By hand, for the bridge driver:
//
//	ip link add name br-0123456789ab type bridge
//	ip addr add 10.77.0.1/24 brd + dev br-0123456789ab
//	ip link set br-0123456789ab up
//
// A Network is plain data: it has no lock, no pointer and no method that acts.
package network

import (
	"crypto/rand"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
)

// Names of options that several drivers share (docker network create -o).
const (
	OptionMTU             = "com.docker.network.driver.mtu"
	OptionInterfacePrefix = "com.docker.network.container_iface_prefix"

	// OptionRecords holds names of the network's own, beside its endpoints':
	// "db=10.0.0.5,*.dev=10.0.0.9,www=web".
	OptionRecords = "linkspan.dns.records"
)

// Names of auxiliary addresses that are the containers' gateway, in place of
// the address that the network's own link has.
const (
	AuxGateway4 = "DefaultGatewayIPv4"
	AuxGateway6 = "DefaultGatewayIPv6"
)

// Network is the record of a network. Options and Labels are as the user typed
// them; everything else is as used.
type Network struct {
	ID      linkspan.ID
	Name    string
	Driver  string
	Scope   string // "local" or "global"
	Created time.Time

	Options map[string]string `json:",omitempty"`
	Labels  map[string]string `json:",omitempty"`

	IPv4       bool
	IPv6       bool
	Internal   bool
	Attachable bool

	// ConfigOnly says that the record lends its settings to others and is no
	// network itself. ConfigFrom names the one that they were lent by.
	ConfigOnly bool   `json:",omitempty"`
	ConfigFrom string `json:",omitempty"`

	IPAMDriver  string            `json:",omitempty"`
	IPAMOptions map[string]string `json:",omitzero"` // shown as it was given: nil is not empty
	Pools       []ipam.Pool       `json:",omitempty"`

	// PoolIDs are the names that an IPAM driver which is a plugin gave to Pools,
	// in their order, and AddressSpace is where they are from.
	PoolIDs      []string `json:",omitempty"`
	AddressSpace string   `json:",omitempty"`

	// Shared says that the record is the cluster's: all hosts know the network, and
	// each makes its part of it when it needs it.
	Shared bool `json:",omitempty"`

	// VNI is the VXLAN network identifier (RFC 7348) of a network that spans hosts.
	VNI uint32 `json:",omitempty"`

	// Adopted, if not nil, says that the network's own link was there before, and
	// what it was like: it stays when the network goes.
	Adopted *Adopted `json:",omitempty"`

	// NoGateway4 and NoGateway6 say that the driver wants no gateway chosen.
	NoGateway4 bool `json:",omitempty"`
	NoGateway6 bool `json:",omitempty"`

	// MAC is that of the network's own link. It is chosen once, since a bridge
	// left to itself changes its address when ports come and go.
	MAC string `json:",omitempty"`
}

// Adopted is what a link was like before a network was made on it.
type Adopted struct {
	MAC           string
	Ports         int
	Up            bool           `json:",omitempty"`
	Addresses     []netip.Prefix `json:",omitempty"`
	DisableIPv6   string         // the sysctl
	RouteLocalnet string         // the sysctl
}

// Predefined are the names of networks that always exist, and "default", which
// stands for the first of them.
func Predefined(name string) bool {
	switch name {
	case "bridge", "host", "none", "default":
		return true
	}
	return false
}

// ValidateName refuses what cannot name a network. Docker allows any other
// characters, and so do we; a name never becomes part of a path or a command.
func ValidateName(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid name: name is empty")
	case strings.ContainsAny(name, "/\x00"), name == ".", name == "..":
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid name: network name %q must not be or contain '/', '.' or '..' as a path does", name)
	case Predefined(name):
		return linkspan.Errorf(linkspan.ErrForbidden, "operation is not permitted on predefined %s network ", name)
	}
	return nil
}

// Pool returns the pool that an address belongs to.
func (n Network) Pool(addr netip.Addr) (ipam.Pool, bool) {
	for _, pool := range n.Pools {
		if pool.Subnet.Contains(addr) {
			return pool, true
		}
	}
	return ipam.Pool{}, false
}

// Ungated tells whether no gateway is to be chosen in a pool.
func (n Network) Ungated(pool ipam.Pool) bool {
	return pool.Subnet.Addr().Is4() && n.NoGateway4 || pool.Subnet.Addr().Is6() && n.NoGateway6
}

// PoolOf returns the first pool of an address family.
func (n Network) PoolOf(ipv6 bool) (ipam.Pool, bool) {
	for _, pool := range n.Pools {
		if pool.Subnet.Addr().Is6() == ipv6 {
			return pool, true
		}
	}
	return ipam.Pool{}, false
}

// RandomMAC returns a random unicast MAC of the locally administered kind
// (IEEE 802, bit 1 of the first octet).
func RandomMAC() string {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac) // never fails: see crypto/rand.Read
	mac[0] = mac[0]&^1 | 2
	return mac.String()
}

// PortMAC returns a random MAC for the host's end of an endpoint's link. On an
// adopted bridge it is a high one, since such a bridge takes the lowest of its
// ports' for its own.
func (n Network) PortMAC() string {
	mac := RandomMAC()
	if n.Adopted != nil {
		return "fe" + mac[2:]
	}
	return mac
}

// InterfacePrefix returns what the names of interfaces on the network start
// with in a sandbox.
func (n Network) InterfacePrefix() string {
	if prefix := n.Options[OptionInterfacePrefix]; prefix != "" {
		return prefix
	}
	return "eth"
}
