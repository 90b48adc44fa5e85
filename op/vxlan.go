package op

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// AddVXLAN makes a tunnel device (RFC 7348) in the machine's own namespace, a
// port of bridge Master: what the bridge sends there goes to another host in a
// UDP packet. It learns nothing and asks nobody: where a station is it knows by
// SetTunnel alone, and it answers ARP and neighbour solicitations itself, by
// SetNeighbour.
type AddVXLAN struct {
	Name   string
	MAC    string
	Master string
	VNI    uint32
	Local  netip.Addr // where the tunnels end here
	Port   int        // UDP, here and at the far ends
	MTU    int        // bytes
}

// Do makes the device, marked and down, and plugs it in.
func (o AddVXLAN) Do(_ context.Context, h *kernel.Host) error {
	links, err := h.Links("")
	if err != nil {
		return err
	}
	master, err := find(h, "", o.Master)
	if err != nil {
		return err
	}
	attrs, err := linkAttrs(o.Name, o.MAC, o.MTU)
	if err != nil {
		return err
	}
	attrs.Group = kernel.Mark
	device := &netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(o.VNI), SrcAddr: o.Local.AsSlice(), Port: o.Port, Proxy: true, UDPCSum: true,
	}
	err = links.LinkAdd(device)
	if errors.Is(err, unix.EEXIST) && h.Reap() == nil {
		err = links.LinkAdd(device) // the number may have been that of a link that waited for its end
	}
	if err != nil {
		return o.refused(h, err)
	}
	if err := links.LinkSetMasterByIndex(device, master.Index); err != nil {
		return errors.Join(fmt.Errorf("plugging %s into bridge %s: %w", o.Name, o.Master, err), h.Doom(o.Name, ""))
	}
	return nil
}

// refused words why the device could not be made. The kernel does not say
// whether the name or the number is taken, nor by whom.
func (o AddVXLAN) refused(h *kernel.Host, err error) error {
	if _, findErr := find(h, "", o.Name); !errors.Is(err, unix.EEXIST) || findErr == nil {
		return adding("vxlan", o.Name, "", err)
	}
	holder, whose := "another device", ""
	if links, failed := h.Links(""); failed == nil {
		all, _ := kernel.Dump(links.LinkList) //nolint:errcheck // then the holder stays unnamed
		for _, link := range all {
			if other, is := link.(*netlink.Vxlan); is && other.VxlanId == int(o.VNI) && other.Port == o.Port {
				holder, whose = "link "+other.Name, ", which is not ours"
				if other.LinkAttrs.Group == kernel.Mark {
					whose = ", of another network or daemon of this host"
				}
			}
		}
	}
	return linkspan.Errorf(linkspan.ErrConflict, "adding vxlan %s: VNI %d on UDP port %d is in use by %s%s (see: ip -d link show type vxlan): %w", o.Name, o.VNI, o.Port, holder, whose, err)
}

// Undo cuts the device off and leaves it to the reaper.
func (o AddVXLAN) Undo(_ context.Context, h *kernel.Host) error { return h.Doom(o.Name, "") }

// Check finds the device on its bridge, as it was made.
func (o AddVXLAN) Check(_ context.Context, h *kernel.Host) error {
	_, link, err := lookUp(h, "", o.Name)
	if err != nil {
		return err
	}
	device, is := link.(*netlink.Vxlan)
	if !is {
		return fmt.Errorf("link %s is no vxlan but %s (see: ip -d link show %s)", o.Name, link.Type(), o.Name)
	}
	errs := []error{checkMark(&device.LinkAttrs), checkMAC("", &device.LinkAttrs, o.MAC), checkMTU("", &device.LinkAttrs, o.MTU)}
	local, _ := netip.AddrFromSlice(device.SrcAddr)
	if device.VxlanId != int(o.VNI) || device.Port != o.Port || local.Unmap() != o.Local || device.Learning || !device.Proxy {
		errs = append(errs, fmt.Errorf("link %s is not the tunnel device that was made (see: ip -d link show %s)", o.Name, o.Name))
	}
	master, err := find(h, "", o.Master)
	if err == nil && device.MasterIndex != master.Index {
		err = fmt.Errorf("link %s is no port of bridge %s (see: ip link show %s)", o.Name, o.Master, o.Name)
	}
	return errors.Join(append(errs, err)...)
}

func (o AddVXLAN) String() string {
	return fmt.Sprintf("ip link add name %s address %s%s group %d master %s type vxlan id %d local %s dstport %d nolearning proxy",
		quote(o.Name), o.MAC, mtuWords(o.MTU), kernel.Mark, quote(o.Master), o.VNI, o.Local, o.Port)
}

// SetTold has a bridge port send only what its bridge was told to send there
// (SetStation), and learn nothing from what comes in: a frame with a forged
// source moves no station. Broadcasts and multicasts still go there. It is
// undone with its link.
type SetTold struct{ Link string }

// Do changes the port.
func (o SetTold) Do(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Link)
	if err != nil {
		return err
	}
	if err := errors.Join(links.LinkSetLearning(link, false), links.LinkSetFlood(link, false)); err != nil {
		return fmt.Errorf("keeping bridge port %s from learning and flooding: %w", o.Link, err)
	}
	return nil
}

// Undo does nothing: the setting lives and dies with the port.
func (o SetTold) Undo(context.Context, *kernel.Host) error { return nil }

// Check finds the port so.
func (o SetTold) Check(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Link)
	if err != nil {
		return err
	}
	info, err := links.LinkGetProtinfo(link)
	if err != nil {
		return fmt.Errorf("reading bridge port %s: %w", o.Link, err)
	}
	if info.Learning || info.Flood {
		return fmt.Errorf("bridge port %s learns or floods (see: bridge -d link show dev %s)", o.Link, o.Link)
	}
	return nil
}

func (o SetTold) String() string {
	return fmt.Sprintf("bridge link set dev %s learning off flood off", quote(o.Link))
}
