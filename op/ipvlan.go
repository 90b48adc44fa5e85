package op

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// AddIPvlan makes a link that shares the wire and the MAC of Parent, a link of
// the machine's own namespace; which of those that share a frame is for, the
// kernel tells by its IP address (Documentation/networking/ipvlan.rst). It is
// made straight in NS.
type AddIPvlan struct {
	NS     string // pinned namespace
	Name   string
	Parent string
	Mode   string // l2, l3, l3s
	Flag   string // bridge, private, vepa
	MTU    int    `json:",omitempty"` // bytes; 0: the parent's
}

func (o AddIPvlan) kinds() (netlink.IPVlanMode, netlink.IPVlanFlag, error) {
	modes := map[string]netlink.IPVlanMode{"l2": netlink.IPVLAN_MODE_L2, "l3": netlink.IPVLAN_MODE_L3, "l3s": netlink.IPVLAN_MODE_L3S}
	flags := map[string]netlink.IPVlanFlag{"bridge": netlink.IPVLAN_FLAG_BRIDGE, "private": netlink.IPVLAN_FLAG_PRIVATE, "vepa": netlink.IPVLAN_FLAG_VEPA}
	mode, known := modes[o.Mode]
	flag, also := flags[o.Flag]
	if !known || !also {
		return 0, 0, linkspan.Errorf(linkspan.ErrInvalid, "%q and %q are no mode and flag of an ipvlan", o.Mode, o.Flag)
	}
	return mode, flag, nil
}

// Do makes the link, marked and down.
func (o AddIPvlan) Do(_ context.Context, h *kernel.Host) error {
	mode, flag, err := o.kinds()
	if err != nil {
		return err
	}
	links, parent, err := lookUp(h, "", o.Parent)
	if err != nil {
		return err
	}
	fd, err := h.FD(o.NS)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Group = o.Name, o.MTU, kernel.Mark
	attrs.ParentIndex, attrs.Namespace = parent.Attrs().Index, netlink.NsFd(fd)
	return adding("ipvlan", o.Name, o.NS, links.LinkAdd(&netlink.IPVlan{LinkAttrs: attrs, Mode: mode, Flag: flag}))
}

// Undo cuts the link off and leaves it to the reaper.
func (o AddIPvlan) Undo(_ context.Context, h *kernel.Host) error { return h.DoomInside(o.NS, o.Name) }

// Check finds the link with its mark and mode.
func (o AddIPvlan) Check(_ context.Context, h *kernel.Host) error {
	_, link, err := lookUp(h, o.NS, o.Name)
	if err != nil {
		return err
	}
	mode, flag, err := o.kinds()
	if err != nil {
		return err
	}
	ipvlan, ok := link.(*netlink.IPVlan)
	if !ok || ipvlan.Mode != mode || ipvlan.Flag != flag {
		return fmt.Errorf("link %s is not an ipvlan in mode %s %s (see: %s -d link show %s)", o.Name, o.Mode, o.Flag, ipIn(o.NS), o.Name)
	}
	return errors.Join(checkMark(link.Attrs()), checkMTU(o.NS, link.Attrs(), o.MTU))
}

func (o AddIPvlan) String() string {
	return fmt.Sprintf("ip link add link %s name %s netns %s%s group %d type ipvlan mode %s %s", quote(o.Parent), quote(o.Name), quote(o.NS), mtuWords(o.MTU), kernel.Mark, o.Mode, o.Flag)
}
