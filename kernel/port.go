package kernel

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// Port is a link of the machine's own namespace and where it is plugged in.
type Port struct {
	Index  int
	Bridge string // empty: it is no port of a bridge
	Number int    // of the port, 1 to 1023, as brctl showstp counts; 0: none
}

// Port returns what a link is plugged into. A link that is gone is an error of
// kind linkspan.ErrNotFound.
func (h *Host) Port(name string) (Port, error) {
	handle, err := h.Links("")
	if err != nil {
		return Port{}, err
	}
	link, err := handle.LinkByName(name)
	if IsGone(err) {
		return Port{}, linkspan.Errorf(linkspan.ErrNotFound, "link %s does not exist (see: ip link show): %w", name, err)
	}
	if err != nil {
		return Port{}, fmt.Errorf("looking up link %s: %w", name, err)
	}
	port := Port{Index: link.Attrs().Index}
	if link.Attrs().MasterIndex == 0 {
		return port, nil
	}
	bridge, err := handle.LinkByIndex(link.Attrs().MasterIndex)
	if err != nil {
		return port, fmt.Errorf("looking up the bridge of link %s: %w", name, err)
	}
	port.Bridge = bridge.Attrs().Name
	settings, err := h.bridgePort(port.Index)
	if err != nil {
		return port, fmt.Errorf("reading the port number of link %s: %w", name, err)
	}
	port.Number = int(settings.Number)
	return port, nil
}

// Passes tells whether a bridge forwards what comes in by a link. It does not
// until it has heard of the link's carrier, which the kernel tells it some time
// after the link is up: what is sent before that is lost. A link that is no port
// of a bridge passes all; one that is gone is an error of kind
// linkspan.ErrNotFound.
func (h *Host) Passes(name string) (bool, error) {
	handle, err := h.Links("")
	if err != nil {
		return false, err
	}
	link, err := handle.LinkByName(name)
	if IsGone(err) {
		return false, linkspan.Errorf(linkspan.ErrNotFound, "link %s does not exist (see: ip link show): %w", name, err)
	}
	if err != nil {
		return false, fmt.Errorf("looking up link %s: %w", name, err)
	}
	if link.Attrs().MasterIndex == 0 {
		return true, nil
	}
	port, err := h.bridgePort(link.Attrs().Index)
	if err != nil {
		return false, fmt.Errorf("reading the state of port %s: %w", name, err)
	}
	return port.State == Forwarding || port.Number == 0, nil
}

// bridgePort returns the zero value for what is no port of a bridge.
func (h *Host) bridgePort(index int) (BridgePort, error) {
	body := make([]byte, unix.SizeofIfInfomsg)
	nlenc.PutInt32(body[4:8], int32(index))
	answers, err := h.send("", netlink.Message{Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request}, Data: body})
	if err != nil {
		return BridgePort{}, err
	}
	for _, answer := range answers {
		l, err := parseLink(answer.Data)
		if err != nil {
			return BridgePort{}, err
		}
		if l.port != nil {
			return *l.port, nil
		}
	}
	return BridgePort{}, nil
}
