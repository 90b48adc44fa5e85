package op

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// MoveLink lends a link of the machine's to a sandbox, where it has another
// name. The link belongs to somebody else, such as a plugin that named it: it is
// neither made nor marked nor deleted here, and Undo gives it back under its own
// name.
type MoveLink struct {
	Link string // in the machine's own namespace
	NS   string
	As   string
}

// Do moves and renames the link with one message, which leaves it down and
// without addresses.
func (o MoveLink) Do(_ context.Context, h *kernel.Host) error {
	attrs, err := find(h, "", o.Link)
	if err != nil {
		return err
	}
	if _, err := find(h, o.NS, o.As); !kernel.IsGone(err) {
		return linkspan.Errorf(linkspan.ErrConflict, "moving link %s: error renaming interface %q to %q: file exists (see: %s link show %s)", o.Link, o.Link, o.As, ipIn(o.NS), o.As)
	}
	fd, err := h.FD(o.NS)
	if err != nil {
		return err
	}
	if err := move(h, "", attrs.Index, fd, o.As); err != nil {
		return fmt.Errorf("moving link %s to namespace %s as %s: %w", o.Link, o.NS, o.As, err)
	}
	return nil
}

// Undo moves the link back. A link that is gone, with its namespace or without,
// is success.
func (o MoveLink) Undo(_ context.Context, h *kernel.Host) error {
	attrs, err := find(h, o.NS, o.As)
	if kernel.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := find(h, "", o.Link); !kernel.IsGone(err) {
		return linkspan.Errorf(linkspan.ErrConflict, "giving link %s back: another link has that name by now (see: ip link show %s); it stays in namespace %s as %s", o.Link, o.Link, o.NS, o.As)
	}
	fd, err := h.FD("")
	if err != nil {
		return err
	}
	if err := move(h, o.NS, attrs.Index, fd, o.Link); err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("giving link %s back: %w", o.Link, err)
	}
	return nil
}

// Check finds the link in the sandbox.
func (o MoveLink) Check(_ context.Context, h *kernel.Host) error {
	_, err := find(h, o.NS, o.As)
	return err
}

func (o MoveLink) String() string {
	return fmt.Sprintf("ip link set %s netns %s name %s", quote(o.Link), quote(o.NS), quote(o.As))
}

// move sends a link from one namespace to another. Both attributes are in one
// message, so that no instant exists in which the link has its old name there.
func move(h *kernel.Host, from string, index, to int, name string) error {
	return h.Inside(from, func() error {
		req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
		info := nl.NewIfInfomsg(unix.AF_UNSPEC)
		info.Index = int32(index)
		req.AddData(info)
		req.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(to))))
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// SetMAC gives a link another Ethernet address. Was is what it had before: Undo
// restores it.
type SetMAC struct {
	NS   string `json:",omitempty"`
	Link string
	MAC  string
	Was  string `json:",omitempty"`
}

// Do sets the address.
func (o SetMAC) Do(_ context.Context, h *kernel.Host) error { return o.set(h, o.MAC) }

// Undo restores the address, if it is known and the link is there.
func (o SetMAC) Undo(_ context.Context, h *kernel.Host) error {
	if o.Was == "" {
		return nil
	}
	if err := o.set(h, o.Was); err != nil && !kernel.IsGone(err) {
		return err
	}
	return nil
}

func (o SetMAC) set(h *kernel.Host, text string) error {
	mac, err := net.ParseMAC(text)
	if err != nil {
		return fmt.Errorf("setting the MAC of link %s: %w", o.Link, err)
	}
	links, link, err := lookUp(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	err = links.LinkSetHardwareAddr(link, mac)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return linkspan.Errorf(linkspan.ErrUnsupported, "setting the MAC of link %s to %s: links of kind %s keep their own: %w", o.Link, text, link.Type(), err)
	}
	if err != nil {
		return fmt.Errorf("setting the MAC of link %s to %s: %w", o.Link, text, err)
	}
	return nil
}

// Check finds the address.
func (o SetMAC) Check(_ context.Context, h *kernel.Host) error {
	attrs, err := find(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	return checkMAC(o.NS, attrs, o.MAC)
}

func (o SetMAC) String() string {
	return fmt.Sprintf("%s link set %s address %s", ipIn(o.NS), quote(o.Link), o.MAC)
}
