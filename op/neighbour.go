package op

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/linkspan/linkspan/kernel"
)

// PinNeighbour has a sandbox send to an address by a MAC that it is told, and not
// by one that it asks for. What it knew of the address before is replaced.
type PinNeighbour struct {
	NS      string
	Link    string
	Address netip.Addr
	MAC     string
}

// Do sets the entry.
func (o PinNeighbour) Do(_ context.Context, h *kernel.Host) error {
	links, entry, err := o.entry(h)
	if err != nil {
		return err
	}
	if err := links.NeighSet(entry); err != nil {
		return fmt.Errorf("setting an entry (%s): %w", o, err)
	}
	return nil
}

// Undo removes the entry, unless it leads elsewhere by now.
func (o PinNeighbour) Undo(_ context.Context, h *kernel.Host) error {
	found, err := o.find(h)
	if err == nil && found != nil {
		var links *netlink.Handle
		var entry *netlink.Neigh
		if links, entry, err = o.entry(h); err == nil {
			err = links.NeighDel(entry)
		}
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("removing an entry (%s): %w", o, err)
	}
	return nil
}

// Check finds the entry.
func (o PinNeighbour) Check(_ context.Context, h *kernel.Host) error {
	found, err := o.find(h)
	if err == nil && found == nil {
		err = fmt.Errorf("link %s does not know that %s has MAC %s (see: %s neigh show dev %s)", o.Link, o.Address, o.MAC, ipIn(o.NS), o.Link)
	}
	return err
}

func (o PinNeighbour) String() string {
	return fmt.Sprintf("%s neigh replace %s lladdr %s dev %s nud permanent", ipIn(o.NS), o.Address, o.MAC, quote(o.Link))
}

// find returns the entry, nil if there is none or another one.
func (o PinNeighbour) find(h *kernel.Host) (*netlink.Neigh, error) {
	links, entry, err := o.entry(h)
	if err != nil {
		return nil, err
	}
	all, err := kernel.Dump(func() ([]netlink.Neigh, error) { return links.NeighList(entry.LinkIndex, entry.Family) })
	for _, n := range all {
		if n.IP.Equal(entry.IP) && n.State == netlink.NUD_PERMANENT && n.HardwareAddr.String() == entry.HardwareAddr.String() {
			return &n, nil
		}
	}
	return nil, err
}

func (o PinNeighbour) entry(h *kernel.Host) (*netlink.Handle, *netlink.Neigh, error) {
	mac, err := net.ParseMAC(o.MAC)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the MAC of a neighbour: %w", err)
	}
	links, link, err := lookUp(h, o.NS, o.Link)
	if err != nil {
		return nil, nil, err
	}
	return links, &netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: family(o.Address), State: netlink.NUD_PERMANENT,
		IP: net.IP(o.Address.AsSlice()), HardwareAddr: mac,
	}, nil
}
