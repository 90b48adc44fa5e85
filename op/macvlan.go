package op

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// Modes of a macvlan: what happens to frames from one to another on the same
// parent.
const (
	MacvlanBridge   = "bridge"   // they pass
	MacvlanPrivate  = "private"  // they do not
	MacvlanVEPA     = "vepa"     // they go out, and the switch outside may send them back
	MacvlanPassthru = "passthru" // there is no other, and the parent takes over the MAC
)

// AddMacvlan makes a link with a MAC of its own that shares the wire of Parent,
// a link of the machine's own namespace. It is made straight in NS.
type AddMacvlan struct {
	NS     string `json:",omitempty"` // pinned namespace; empty: the machine's own
	Name   string
	MAC    string
	Parent string
	Mode   string
	MTU    int `json:",omitempty"` // bytes; 0: the parent's
}

func macvlanMode(name string) (netlink.MacvlanMode, error) {
	switch name {
	case MacvlanBridge:
		return netlink.MACVLAN_MODE_BRIDGE, nil
	case MacvlanPrivate:
		return netlink.MACVLAN_MODE_PRIVATE, nil
	case MacvlanVEPA:
		return netlink.MACVLAN_MODE_VEPA, nil
	case MacvlanPassthru:
		return netlink.MACVLAN_MODE_PASSTHRU, nil
	}
	return 0, linkspan.Errorf(linkspan.ErrInvalid, "%q is no mode of a macvlan", name)
}

// Do makes the link, marked and down.
func (o AddMacvlan) Do(ctx context.Context, h *kernel.Host) error {
	mode, err := macvlanMode(o.Mode)
	if err != nil {
		return err
	}
	links, parent, err := lookUp(h, "", o.Parent)
	if err != nil {
		return err
	}
	attrs, err := linkAttrs(o.Name, o.MAC, o.MTU)
	if err != nil {
		return err
	}
	attrs.Group, attrs.ParentIndex = kernel.Mark, parent.Attrs().Index
	if o.NS != "" {
		fd, failed := h.FD(o.NS)
		if failed != nil {
			return failed
		}
		attrs.Namespace = netlink.NsFd(fd)
	}
	if err = links.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: mode}); err != nil {
		return o.refused(parent.Attrs(), err)
	}
	if o.Mode != MacvlanPassthru {
		return nil
	}
	// The kernel has given it the parent's MAC; from here on both have ours.
	if err = o.setMAC(h, attrs.HardwareAddr); err != nil {
		return errors.Join(err, o.Undo(ctx, h))
	}
	return nil
}

func (o AddMacvlan) refused(parent *netlink.LinkAttrs, err error) error {
	switch {
	case o.MTU > parent.MTU:
		return linkspan.Errorf(linkspan.ErrInvalid, "adding macvlan %s: its MTU of %d is more than that of its parent %s, %d (see: ip link show %s): %w", o.Name, o.MTU, o.Parent, parent.MTU, o.Parent, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBUSY):
		return linkspan.Errorf(linkspan.ErrConflict, "adding macvlan %s on %s: the parent is a loopback or no Ethernet link, is in a bridge, or is in use in mode passthru, or this is to be passthru and it is in use (see: ip -d link show %s): %w", o.Name, o.Parent, o.Parent, err)
	}
	return adding("macvlan", o.Name, o.NS, err)
}

func (o AddMacvlan) setMAC(h *kernel.Host, mac net.HardwareAddr) error {
	links, link, err := lookUp(h, o.NS, o.Name)
	if err == nil {
		err = links.LinkSetHardwareAddr(link, mac)
	}
	if err != nil {
		return fmt.Errorf("setting the MAC of macvlan %s: %w", o.Name, err)
	}
	return nil
}

// Undo cuts the link off and leaves it to the reaper; in mode passthru it waits
// until the link is gone, for nobody else can use the parent before.
func (o AddMacvlan) Undo(_ context.Context, h *kernel.Host) error {
	if o.Mode != MacvlanPassthru {
		return h.DoomInside(o.NS, o.Name)
	}
	links, link, err := lookUp(h, o.NS, o.Name)
	if err == nil && link.Attrs().Group != kernel.Mark {
		return linkspan.Errorf(linkspan.ErrConflict, "link %s is not ours and is left alone (see: %s -d link show %s)", o.Name, ipIn(o.NS), o.Name)
	}
	if err == nil {
		err = links.LinkDel(link)
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("removing macvlan %s: %w", o.Name, err)
	}
	return nil
}

// Check finds the link with its mark, MAC and mode.
func (o AddMacvlan) Check(_ context.Context, h *kernel.Host) error {
	_, link, err := lookUp(h, o.NS, o.Name)
	if err != nil {
		return err
	}
	macvlan, ok := link.(*netlink.Macvlan)
	if !ok {
		return fmt.Errorf("link %s is no macvlan but %s (see: %s -d link show %s)", o.Name, link.Type(), ipIn(o.NS), o.Name)
	}
	attrs := link.Attrs()
	errs := []error{checkMark(attrs), checkMAC(o.NS, attrs, o.MAC), checkMTU(o.NS, attrs, o.MTU)}
	if mode, wrong := macvlanMode(o.Mode); wrong != nil || macvlan.Mode != mode {
		errs = append(errs, fmt.Errorf("link %s is not in mode %s (see: %s -d link show %s)", o.Name, o.Mode, ipIn(o.NS), o.Name))
	}
	return errors.Join(errs...)
}

func (o AddMacvlan) String() string {
	where := ""
	if o.NS != "" {
		where = " netns " + quote(o.NS)
	}
	line := fmt.Sprintf("ip link add link %s name %s%s address %s%s group %d type macvlan mode %s", quote(o.Parent), quote(o.Name), where, o.MAC, mtuWords(o.MTU), kernel.Mark, o.Mode)
	if o.Mode == MacvlanPassthru {
		line += fmt.Sprintf("\n%s link set %s address %s", ipIn(o.NS), quote(o.Name), o.MAC)
	}
	return line
}
