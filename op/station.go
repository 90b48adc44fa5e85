package op

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// The ops of this file are entries of the tables by which a tunnel device finds
// the stations on other hosts (kernel.Station). Each has a Thing of which there
// is one; Do puts it in the place of what was there before, so that a station
// that moves is never without an entry. They are in no stored plan, but computed
// from what there is on other hosts, again and again.

// SetTunnel has a tunnel device send frames for a MAC to another host.
type SetTunnel struct {
	Link string
	MAC  string
	To   netip.Addr // where the other host's tunnels end
}

// Do sets the entry.
func (o SetTunnel) Do(_ context.Context, h *kernel.Host) error {
	return setStation(h, o, o.Link, o.station())
}

// Undo removes the entry, unless it leads elsewhere by now.
func (o SetTunnel) Undo(_ context.Context, h *kernel.Host) error {
	return dropStation(h, o, o.Link, o.station())
}

// Check finds the entry.
func (o SetTunnel) Check(_ context.Context, h *kernel.Host) error {
	return checkStation(h, o.Link, o.station(), fmt.Sprintf("link %s does not send frames for %s to %s (see: bridge fdb show dev %s)", o.Link, o.MAC, o.To, o.Link))
}

// Thing names the entry.
func (o SetTunnel) Thing() string { return "tunnel of " + o.Link + " for " + o.MAC }

func (o SetTunnel) station() kernel.Station {
	return kernel.Station{Table: kernel.Tunnels, MAC: o.MAC, Addr: o.To}
}

func (o SetTunnel) String() string {
	return fmt.Sprintf("bridge fdb replace %s dev %s dst %s self permanent", o.MAC, quote(o.Link), o.To)
}

// SetStation has the bridge of a tunnel device send frames for a MAC there.
type SetStation struct {
	Link string // the tunnel device
	MAC  string
}

// Do sets the entry.
func (o SetStation) Do(_ context.Context, h *kernel.Host) error {
	return setStation(h, o, o.Link, o.station())
}

// Undo removes the entry.
func (o SetStation) Undo(_ context.Context, h *kernel.Host) error {
	return dropStation(h, o, o.Link, o.station())
}

// Check finds the entry.
func (o SetStation) Check(_ context.Context, h *kernel.Host) error {
	return checkStation(h, o.Link, o.station(), fmt.Sprintf("the bridge of %s does not send frames for %s there (see: bridge fdb show dev %s)", o.Link, o.MAC, o.Link))
}

// Thing names the entry.
func (o SetStation) Thing() string { return "station at " + o.Link + " with " + o.MAC }

func (o SetStation) station() kernel.Station {
	return kernel.Station{Table: kernel.Ports, MAC: o.MAC}
}

func (o SetStation) String() string {
	return fmt.Sprintf("bridge fdb replace %s dev %s master static", o.MAC, quote(o.Link))
}

// SetNeighbour has a tunnel device answer who has an address, in the place of
// the one that has it.
type SetNeighbour struct {
	Link    string
	Address netip.Addr
	MAC     string
}

// Do sets the entry.
func (o SetNeighbour) Do(_ context.Context, h *kernel.Host) error {
	return setStation(h, o, o.Link, o.station())
}

// Undo removes the entry, unless another MAC has the address by now.
func (o SetNeighbour) Undo(_ context.Context, h *kernel.Host) error {
	return dropStation(h, o, o.Link, o.station())
}

// Check finds the entry.
func (o SetNeighbour) Check(_ context.Context, h *kernel.Host) error {
	return checkStation(h, o.Link, o.station(), fmt.Sprintf("link %s does not know that %s has MAC %s (see: ip neigh show dev %s)", o.Link, o.Address, o.MAC, o.Link))
}

// Thing names the entry.
func (o SetNeighbour) Thing() string { return "neighbour of " + o.Link + " with " + o.Address.String() }

func (o SetNeighbour) station() kernel.Station {
	return kernel.Station{Table: kernel.Neighbours, MAC: o.MAC, Addr: o.Address}
}

func (o SetNeighbour) String() string {
	return fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", o.Address, o.MAC, quote(o.Link))
}

// StationOp returns the op that makes an entry of a tunnel device. Its MAC is
// written as the kernel does.
func StationOp(link string, s kernel.Station) Op {
	switch s.Table {
	case kernel.Tunnels:
		return SetTunnel{Link: link, MAC: s.MAC, To: s.Addr}
	case kernel.Ports:
		return SetStation{Link: link, MAC: s.MAC}
	}
	return SetNeighbour{Link: link, Address: s.Addr, MAC: s.MAC}
}

func setStation(h *kernel.Host, o Op, link string, s kernel.Station) error {
	_, device, err := lookUp(h, "", link)
	if err != nil {
		return err
	}
	if device.Attrs().Group != kernel.Mark {
		return linkspan.Errorf(linkspan.ErrConflict, "link %s is not ours and its tables are left alone (see: ip -d link show %s)", link, link)
	}
	if err := h.SetStation(device.Attrs().Index, s); err != nil {
		return fmt.Errorf("setting an entry (%s): %w", o, err)
	}
	return nil
}

// dropStation removes an entry that is as s says. An odd one is removed with all
// of its like.
func dropStation(h *kernel.Host, o Op, link string, s kernel.Station) error {
	_, device, err := lookUp(h, "", link)
	if kernel.IsGone(err) || err == nil && device.Attrs().Group != kernel.Mark {
		return nil // the entries went with our link
	}
	if err != nil {
		return err
	}
	if s.Table == kernel.Neighbours { // the kernel would remove it whatever its MAC
		found, err := h.Station(device.Attrs().Index, s)
		if kernel.IsGone(err) || err == nil && found.MAC != s.MAC {
			return nil
		}
	}
	if err := h.DropStation(device.Attrs().Index, s); err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("removing an entry (%s): %w", o, err)
	}
	return nil
}

func checkStation(h *kernel.Host, link string, s kernel.Station, complaint string) error {
	attrs, err := find(h, "", link)
	if err != nil {
		return err
	}
	found, err := h.Station(attrs.Index, s)
	switch {
	case kernel.IsGone(err), err == nil && found != s:
		return errors.New(complaint)
	case err != nil:
		return fmt.Errorf("%s: %w", complaint, err)
	}
	return nil
}
