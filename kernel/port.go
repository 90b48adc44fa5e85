package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
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
	port.Number, err = h.portNumber(port.Index)
	if err != nil {
		return port, fmt.Errorf("reading the port number of link %s: %w", name, err)
	}
	return port, nil
}

// portNumber asks for IFLA_BRPORT_NO, which the client library does not read.
func (h *Host) portNumber(index int) (int, error) {
	number := 0
	err := h.Inside("", func() error {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(index)
		req.AddData(msg)
		answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
		if err != nil {
			return err
		}
		for _, answer := range answers {
			value := answer[msg.Len():]
			for _, nested := range []uint16{unix.IFLA_LINKINFO, nl.IFLA_INFO_SLAVE_DATA, nl.IFLA_BRPORT_NO} {
				if value, err = attribute(value, nested); err != nil {
					return err
				}
			}
			if len(value) == 2 {
				number = int(binary.NativeEndian.Uint16(value))
			}
		}
		return nil
	})
	return number, err
}

// attribute returns the value of one of several attributes, nil if it is not
// there.
func attribute(raw []byte, kind uint16) ([]byte, error) {
	attrs, err := nl.ParseRouteAttr(raw)
	if err != nil {
		return nil, err
	}
	for _, attr := range attrs {
		if attr.Attr.Type&^uint16(unix.NLA_F_NESTED) == kind {
			return attr.Value, nil
		}
	}
	return nil, nil
}
