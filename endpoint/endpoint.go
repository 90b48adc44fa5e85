// Package endpoint holds the record of an endpoint: the cable of the Container
// Network Model, which joins one sandbox to one network.
//
// By hand, for the bridge driver, an endpoint is a veth pair whose near end is
// a port of the bridge and whose far end is eth0 in the sandbox:
//
//	ip link add name veth0123456 master br-lab type veth peer name eth0 netns SANDBOX
//	ip -n SANDBOX addr add 10.77.0.2/24 brd + dev eth0
//	ip -n SANDBOX link set eth0 up
//	ip link set veth0123456 up
//
// A record exists exactly as long as the attachment does, and its lease, MAC
// and names with it: nothing counts endpoints or leases beside them.
package endpoint

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/linkspan/linkspan"
)

// Names of per-endpoint options (docker network connect --driver-opt).
const (
	OptionInterface = "com.docker.network.endpoint.ifname"
	OptionSysctls   = "com.docker.network.endpoint.sysctls"
)

// Config is what a user wants of an attachment. It outlives the attachment: a
// stopped container keeps it.
type Config struct {
	Network    string            // name or ID, as typed
	NetworkID  linkspan.ID       `json:",omitempty"` // what it resolved to, once it did
	IPv4       netip.Addr        `json:",omitzero"`  // static; zero: any
	IPv6       netip.Addr        `json:",omitzero"`
	LinkLocal  []netip.Addr      `json:",omitempty"`
	MAC        string            `json:",omitempty"`
	Aliases    []string          `json:",omitempty"`
	Links      []string          `json:",omitempty"` // "container:alias"
	Options    map[string]string `json:",omitempty"`
	GwPriority int               `json:",omitempty"`

	// Last is what the attachment got when the container ran last. It is no
	// claim: the next run gets it again if nobody else has it by then.
	Last Used `json:",omitzero"`
}

// Used is what an endpoint got of what is handed out.
type Used struct {
	IPv4 netip.Addr `json:",omitzero"`
	IPv6 netip.Addr `json:",omitzero"`
	MAC  string     `json:",omitempty"`
}

// Endpoint is the record of a live attachment: every value as used.
type Endpoint struct {
	ID      linkspan.ID
	Network linkspan.ID
	Sandbox linkspan.ID
	Owner   linkspan.ID // the container
	Name    string      // of the container: names are unique within a network

	Config Config

	IPv4      netip.Prefix `json:",omitzero"` // the lease, with the length of its subnet
	IPv6      netip.Prefix `json:",omitzero"`
	Gateway4  netip.Addr   `json:",omitzero"` // what the network offers, whether used or not
	Gateway6  netip.Addr   `json:",omitzero"`
	MAC       string       // empty: whatever the link has that a plugin made
	HostMAC   string       // of the host's end
	Interface string       // in the sandbox: eth0
	DNSNames  []string     `json:",omitempty"`

	// Inward says that the network offers no way out, and none is wanted there:
	// the sandbox gets one by the gateway network, unless another endpoint has it.
	Inward bool `json:",omitempty"`
}

// Used returns what the endpoint got.
func (e Endpoint) Used() Used { return Used{e.IPv4.Addr(), e.IPv6.Addr(), e.MAC} }

// HostLink returns the name of the host's end: veth and seven digits.
func (e Endpoint) HostLink() string { return "veth" + e.ID.Prefix(7) }

// Addrs returns the leased addresses without prefix length.
func (e Endpoint) Addrs() []netip.Addr {
	var addrs []netip.Addr
	for _, lease := range []netip.Prefix{e.IPv4, e.IPv6} {
		if lease.IsValid() {
			addrs = append(addrs, lease.Addr())
		}
	}
	return addrs
}

// ParseMAC accepts a unicast Ethernet address in any of the usual spellings
// and returns the canonical one.
func ParseMAC(text string) (string, error) {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return "", linkspan.Errorf(linkspan.ErrInvalid, "invalid MAC address: %q is not six octets such as 02:42:0a:4d:00:32", text)
	}
	if mac[0]&1 != 0 {
		return "", linkspan.Errorf(linkspan.ErrInvalid, "invalid MAC address: %s is a multicast address and cannot be an interface's own", mac)
	}
	if mac.String() == "00:00:00:00:00:00" {
		return "", linkspan.Errorf(linkspan.ErrInvalid, "invalid MAC address: %s", mac)
	}
	return mac.String(), nil
}

// ValidateInterface refuses what the kernel does not take as a link's name
// (dev_valid_name in net/core/dev.c).
func ValidateInterface(name string) error {
	switch {
	case name == "", len(name) > 15, name == ".", name == "..", strings.ContainsAny(name, "/: \t\n\v\f\r\x00"):
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid interface name %q: 1 to 15 bytes, no blanks, '/' or ':'", name)
	}
	return nil
}

// FreeInterface returns the prefix with the lowest number that makes a name
// not in taken.
func FreeInterface(prefix string, taken map[string]bool) string {
	for i := 0; ; i++ {
		if name := fmt.Sprintf("%s%d", prefix, i); !taken[name] {
			return name
		}
	}
}
