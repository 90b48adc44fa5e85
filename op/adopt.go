package op

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// AdoptBridge takes a bridge that somebody else made for a network, and leaves
// it when the network goes. A bridge without ports would take the MAC of the
// first one that it gets, and lose its own with the last: then MAC is the one
// that it has, to be fixed.
type AdoptBridge struct {
	Name string
	MAC  string `json:",omitempty"` // empty: it has ports, which keep it
}

// Claims the name of the bridge.
func (o AdoptBridge) Claims() string { return "link " + o.Name }

// Do finds the bridge, and fixes its MAC. It fails if the link is ours: then it
// is another network's, or left over from one.
func (o AdoptBridge) Do(ctx context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Name)
	if err != nil {
		return err
	}
	if err = o.Check(ctx, h); link.Type() != "bridge" || link.Attrs().Group == kernel.Mark || o.MAC == "" {
		return err
	}
	mac, err := net.ParseMAC(o.MAC)
	if err != nil {
		return fmt.Errorf("fixing the MAC of bridge %s: %w", o.Name, err)
	}
	if err := links.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("fixing the MAC of bridge %s: %w", o.Name, err)
	}
	return nil
}

// Undo leaves the bridge as it is.
func (o AdoptBridge) Undo(context.Context, *kernel.Host) error { return nil }

// Check finds the bridge.
func (o AdoptBridge) Check(_ context.Context, h *kernel.Host) error {
	_, link, err := lookUp(h, "", o.Name)
	if err != nil {
		return err
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("existing interface %s is not a bridge but of kind %s (see: ip -d link show %s)", o.Name, link.Type(), o.Name)
	}
	if link.Attrs().Group == kernel.Mark {
		return linkspan.Errorf(linkspan.ErrConflict, "bridge %s is not a stranger's but ours (see: ip -d link show %s)", o.Name, o.Name)
	}
	if o.MAC == "" {
		return nil
	}
	return checkMAC("", link.Attrs(), o.MAC)
}

func (o AdoptBridge) String() string {
	show := fmt.Sprintf("ip link show dev %s type bridge", quote(o.Name))
	if o.MAC == "" {
		return show
	}
	return fmt.Sprintf("%s && ip link set %s address %s", show, quote(o.Name), o.MAC)
}

// Raise brings a link up that is not ours and was down. Undo brings it down
// again, and restores the IPv6 addresses that the kernel takes off a link that
// goes down (Documentation/networking/ip-sysctl.rst, keep_addr_on_down).
type Raise struct {
	Link string
	Keep []netip.Prefix `json:",omitempty"` // its IPv6 addresses
}

// Do brings the link up.
func (o Raise) Do(ctx context.Context, h *kernel.Host) error { return SetUp{Link: o.Link}.Do(ctx, h) }

// Undo brings it down.
func (o Raise) Undo(ctx context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Link)
	if err == nil {
		err = links.LinkSetDown(link)
	}
	if err != nil {
		if kernel.IsGone(err) {
			return nil
		}
		return fmt.Errorf("bringing link %s down: %w", o.Link, err)
	}
	for _, addr := range o.Keep {
		add := AddAddress{Link: o.Link, Address: addr, Adopted: true}
		if add.Check(ctx, h) == nil {
			continue
		}
		plain := add.addr()
		plain.Flags = 0 // as the one who gave it did
		if err := links.AddrAdd(link, plain); err != nil && !kernel.IsGone(err) {
			return fmt.Errorf("restoring address %s of %s: %w", addr, o.Link, err)
		}
	}
	return nil
}

// Check finds the link up.
func (o Raise) Check(ctx context.Context, h *kernel.Host) error {
	return SetUp{Link: o.Link}.Check(ctx, h)
}

func (o Raise) String() string { return SetUp{Link: o.Link}.String() }
