package op

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// AddAddress gives a link an address. IPv6 addresses skip duplicate address
// detection (RFC 4862 section 5.4), because IPAM guarantees that they are
// unique and a container must not wait a second for its network.
type AddAddress struct {
	NS      string `json:",omitempty"`
	Link    string
	Address netip.Prefix // the address with its prefix length

	// Adopted says that the link is not ours, and yet the address is.
	Adopted bool `json:",omitempty"`
}

// Do adds the address.
func (o AddAddress) Do(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	if err := links.AddrAdd(link, o.addr()); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return linkspan.Errorf(linkspan.ErrConflict, "adding address %s to %s: it is there already (see: %s addr show %s): %w", o.Address, o.Link, ipIn(o.NS), o.Link, err)
		}
		return fmt.Errorf("adding address %s to %s: %w", o.Address, o.Link, err)
	}
	return nil
}

// Undo removes the address.
func (o AddAddress) Undo(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, o.NS, o.Link)
	if err == nil && o.NS == "" && !o.Adopted && link.Attrs().Group != kernel.Mark {
		return nil // a stranger has the name now; the address went with our link
	}
	if err == nil {
		err = links.AddrDel(link, o.addr())
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("removing address %s from %s: %w", o.Address, o.Link, err)
	}
	return nil
}

// Check finds the address on the link.
func (o AddAddress) Check(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	addrs, err := kernel.Dump(func() ([]netlink.Addr, error) { return links.AddrList(link, family(o.Address.Addr())) })
	if err != nil {
		return fmt.Errorf("listing the addresses of %s: %w", o.Link, err)
	}
	want := ipNet(o.Address)
	for _, addr := range addrs {
		if addr.IP.Equal(want.IP) && addr.Mask.String() == want.Mask.String() {
			return nil
		}
	}
	return fmt.Errorf("address %s is missing from %s (see: %s addr show %s)", o.Address, o.Link, ipIn(o.NS), o.Link)
}

func (o AddAddress) String() string {
	how := " brd +"
	switch {
	case o.Address.Addr().Is6():
		how = " nodad"
	case o.Address.Bits() >= 31:
		how = ""
	}
	return fmt.Sprintf("%s addr add %s%s dev %s", ipIn(o.NS), o.Address, how, quote(o.Link))
}

func (o AddAddress) addr() *netlink.Addr {
	addr := &netlink.Addr{IPNet: ipNet(o.Address)}
	if o.Address.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

// AddRoute adds a route: by way of a neighbour, or straight out of a link if
// Via is the zero Addr.
type AddRoute struct {
	NS   string       `json:",omitempty"`
	To   netip.Prefix // 0.0.0.0/0 and ::/0 are the default routes
	Via  netip.Addr   `json:",omitzero"`
	Link string
}

// Do adds the route.
func (o AddRoute) Do(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	if err := links.RouteAdd(o.route(link)); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return linkspan.Errorf(linkspan.ErrConflict, "adding a route to %s: there is one already (see: %s route show %s): %w", o.To, ipIn(o.NS), o.To, err)
		}
		return fmt.Errorf("adding a route to %s via %s on %s: %w", o.To, o.Via, o.Link, err)
	}
	return nil
}

// Undo removes the route.
func (o AddRoute) Undo(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, o.NS, o.Link)
	if err == nil && o.NS == "" && link.Attrs().Group != kernel.Mark {
		return nil // a stranger has the name now; the route went with our link
	}
	if err == nil {
		err = links.RouteDel(o.route(link))
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("removing the route to %s on %s: %w", o.To, o.Link, err)
	}
	return nil
}

// Check finds the route.
func (o AddRoute) Check(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	want := o.route(link)
	routes, err := kernel.Dump(func() ([]netlink.Route, error) {
		return links.RouteListFiltered(family(o.To.Addr()), want, netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
	})
	if err != nil {
		return fmt.Errorf("listing the routes of %s: %w", o.Link, err)
	}
	for _, route := range routes {
		if route.Gw.Equal(want.Gw) {
			return nil
		}
	}
	return fmt.Errorf("the route to %s via %s is missing from %s (see: %s route)", o.To, o.Via, o.Link, ipIn(o.NS))
}

func (o AddRoute) String() string {
	to := o.To.String()
	if o.To.Bits() == 0 {
		to = "default"
	}
	command := ipIn(o.NS)
	if o.To.Addr().Is6() {
		command += " -6"
	}
	if !o.Via.IsValid() {
		return fmt.Sprintf("%s route add %s dev %s", command, to, quote(o.Link))
	}
	return fmt.Sprintf("%s route add %s via %s dev %s", command, to, o.Via, quote(o.Link))
}

func (o AddRoute) route(link netlink.Link) *netlink.Route {
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(o.To)}
	if o.Via.IsValid() {
		route.Gw = net.IP(o.Via.AsSlice())
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	return route
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// ipNet converts at the edge to the netlink library.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
