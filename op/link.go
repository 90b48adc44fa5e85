package op

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// AddBridge makes a bridge in the machine's own namespace: an Ethernet switch
// in software, whose own port is a link of the same name. Its MAC is given,
// because a bridge without one takes the lowest of its ports and changes it
// when they come and go.
type AddBridge struct {
	Name string
	MAC  string
	MTU  int `json:",omitempty"` // bytes; 0: the kernel's default, 1500
}

// Do makes the bridge, marked and down.
func (o AddBridge) Do(_ context.Context, h *kernel.Host) error {
	links, err := h.Links("")
	if err != nil {
		return err
	}
	attrs, err := linkAttrs(o.Name, o.MAC, o.MTU)
	if err != nil {
		return err
	}
	attrs.Group = kernel.Mark
	return adding("bridge", o.Name, "", links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
}

// Undo cuts the bridge off and leaves it to the reaper.
func (o AddBridge) Undo(_ context.Context, h *kernel.Host) error { return h.Doom(o.Name, "") }

// Check finds the bridge with its mark and MAC.
func (o AddBridge) Check(_ context.Context, h *kernel.Host) error {
	attrs, err := find(h, "", o.Name)
	if err != nil {
		return err
	}
	return errors.Join(checkMark(attrs), checkMAC("", attrs, o.MAC), checkMTU("", attrs, o.MTU))
}

func (o AddBridge) String() string {
	return fmt.Sprintf("ip link add name %s address %s%s group %d type bridge", quote(o.Name), o.MAC, mtuWords(o.MTU), kernel.Mark)
}

// AddVeth makes a pair of links joined like the two ends of a cable: one in the
// machine's own namespace, a port of bridge Master if that is named; the other
// made straight in PeerNS, so that it never has to be moved or renamed.
type AddVeth struct {
	Name    string
	MAC     string
	Master  string `json:",omitempty"`
	Peer    string
	PeerMAC string
	PeerNS  string
	MTU     int `json:",omitempty"` // bytes, of both ends; 0: 1500
}

// Do makes the pair, down at both ends, and plugs the near one in.
func (o AddVeth) Do(_ context.Context, h *kernel.Host) error {
	links, err := h.Links("")
	if err != nil {
		return err
	}
	attrs, err := linkAttrs(o.Name, o.MAC, o.MTU)
	if err != nil {
		return err
	}
	attrs.Group = kernel.Mark
	peerMAC, err := net.ParseMAC(o.PeerMAC)
	if err != nil {
		return fmt.Errorf("adding link %s: %w", o.Peer, err)
	}
	fd, err := h.FD(o.PeerNS)
	if err != nil {
		return err
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU = o.Peer, peerMAC, uint32(o.MTU)
	veth.PeerNamespace = netlink.NsFd(fd)
	if err := links.LinkAdd(veth); err != nil {
		return o.refused(h, err)
	}
	if err := o.plugIn(h, links, veth); err != nil {
		return errors.Join(err, h.Doom(o.Name, o.PeerNS))
	}
	return nil
}

// refused words why the pair could not be made. The kernel does not say which
// of the two names is taken.
func (o AddVeth) refused(h *kernel.Host, err error) error {
	if _, findErr := find(h, "", o.Name); errors.Is(err, unix.EEXIST) && findErr != nil {
		return adding("veth", o.Peer, o.PeerNS, err)
	}
	return adding("veth", o.Name, "", err)
}

func (o AddVeth) plugIn(h *kernel.Host, links *netlink.Handle, veth *netlink.Veth) error {
	if o.Master == "" {
		return nil
	}
	master, err := find(h, "", o.Master)
	if err == nil {
		err = links.LinkSetMasterByIndex(veth, master.Index)
	}
	if errors.Is(err, unix.EXFULL) {
		return linkspan.Errorf(linkspan.ErrUnavailable, "bridge %s has all the 1,023 ports that the kernel allows (see: bridge link show master %s): %w", o.Master, o.Master, err)
	}
	if err != nil {
		return fmt.Errorf("plugging %s into bridge %s: %w", o.Name, o.Master, err)
	}
	return nil
}

// Undo cuts both ends off and leaves the pair to the reaper.
func (o AddVeth) Undo(_ context.Context, h *kernel.Host) error { return h.Doom(o.Name, o.PeerNS) }

// Check finds both ends, the near one on its bridge.
func (o AddVeth) Check(_ context.Context, h *kernel.Host) error {
	near, err := find(h, "", o.Name)
	if err != nil {
		return err
	}
	errs := []error{checkMark(near), checkMAC("", near, o.MAC), checkMTU("", near, o.MTU)}
	if o.Master != "" {
		var master *netlink.LinkAttrs
		master, err = find(h, "", o.Master)
		if err == nil && near.MasterIndex != master.Index {
			err = fmt.Errorf("link %s is no port of bridge %s (see: ip link show %s)", o.Name, o.Master, o.Name)
		}
		errs = append(errs, err)
	}
	far, err := find(h, o.PeerNS, o.Peer)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, checkMAC(o.PeerNS, far, o.PeerMAC), checkMTU(o.PeerNS, far, o.MTU))...)
}

func (o AddVeth) String() string {
	var near strings.Builder
	fmt.Fprintf(&near, "ip link add name %s address %s%s group %d", quote(o.Name), o.MAC, mtuWords(o.MTU), kernel.Mark)
	if o.Master != "" {
		fmt.Fprintf(&near, " master %s", quote(o.Master))
	}
	return fmt.Sprintf("%s type veth peer name %s address %s%s netns %s", &near, quote(o.Peer), o.PeerMAC, mtuWords(o.MTU), quote(o.PeerNS))
}

// SetUp brings a link up: frames pass from now on.
type SetUp struct {
	NS   string `json:",omitempty"` // pinned namespace; empty: the machine's own
	Link string

	// Adopted says that the link may bear no mark, and yet is brought down.
	Adopted bool `json:",omitempty"`
}

// Do brings the link up.
func (o SetUp) Do(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	err = links.LinkSetUp(link)
	if errors.Is(err, unix.ENETDOWN) {
		return linkspan.Errorf(linkspan.ErrUnavailable, "bringing link %s up: its parent, the link whose wire it shares, is down (see: ip link): %w", o.Link, err)
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return linkspan.Errorf(linkspan.ErrConflict, "bringing link %s up: another program has the UDP port of its tunnels (see: ss -lunp; ip -d link show %s): %w", o.Link, o.Link, err)
	}
	if err != nil {
		return fmt.Errorf("bringing link %s up: %w", o.Link, err)
	}
	return nil
}

// Undo brings the link down again.
func (o SetUp) Undo(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, o.NS, o.Link)
	if err == nil && o.NS == "" && !o.Adopted && link.Attrs().Group != kernel.Mark {
		return linkspan.Errorf(linkspan.ErrConflict, "link %s is not ours and stays up (see: ip -d link show %s)", o.Link, o.Link)
	}
	if err == nil {
		err = links.LinkSetDown(link)
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("bringing link %s down: %w", o.Link, err)
	}
	return nil
}

// Check finds the link up.
func (o SetUp) Check(_ context.Context, h *kernel.Host) error {
	attrs, err := find(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	if attrs.Flags&net.FlagUp == 0 {
		return fmt.Errorf("link %s is down (see: %s link show %s)", o.Link, ipIn(o.NS), o.Link)
	}
	return nil
}

func (o SetUp) String() string { return fmt.Sprintf("%s link set %s up", ipIn(o.NS), quote(o.Link)) }

// SetIsolated keeps a bridge port from talking to other isolated ports of the
// same bridge; it still reaches the bridge itself (bridge(8), isolated). It is
// undone with its link.
type SetIsolated struct{ Link string }

// Do isolates the port.
func (o SetIsolated) Do(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Link)
	if err != nil {
		return err
	}
	if err := links.LinkSetIsolated(link, true); err != nil {
		return fmt.Errorf("isolating bridge port %s: %w", o.Link, err)
	}
	return nil
}

// Undo does nothing: the setting lives and dies with the port.
func (o SetIsolated) Undo(context.Context, *kernel.Host) error { return nil }

// Check finds the port isolated.
func (o SetIsolated) Check(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Link)
	if err != nil {
		return err
	}
	info, err := links.LinkGetProtinfo(link)
	if err != nil {
		return fmt.Errorf("reading bridge port %s: %w", o.Link, err)
	}
	if !info.Isolated {
		return fmt.Errorf("bridge port %s is not isolated (see: bridge -d link show dev %s)", o.Link, o.Link)
	}
	return nil
}

func (o SetIsolated) String() string {
	return fmt.Sprintf("bridge link set dev %s isolated on", quote(o.Link))
}
