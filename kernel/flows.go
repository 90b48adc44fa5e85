package kernel

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Flow is a conversation as connection tracking knows it (conntrack -L): From
// sent the first packet to To; Server is who answers. Server differs from To
// exactly if the destination is translated.
type Flow struct {
	Protocol         string // tcp, udp or sctp; empty: another
	From, To, Server netip.AddrPort
}

// DeleteFlows makes the kernel forget the conversations of the machine that
// match: their next packet is looked at as if it were the first, by the rules
// that there are then. Rules of address translation see nothing else.
//
// The kernel keeps the conversations of all namespaces in one hash table, and
// walks all of it for whoever asks: some 10 ms, more if there are many. So it is
// asked once for both families, and not at all if there are none.
func (h *Host) DeleteFlows(match func(Flow) bool) error {
	var ipv4, ipv6 bool
	flows, err := h.Flows()
	for _, f := range flows {
		if match(f) {
			ipv4, ipv6 = ipv4 || f.To.Addr().Is4(), ipv6 || f.To.Addr().Is6()
		}
	}
	if err == nil && ipv4 {
		err = h.deleteFlows(unix.AF_INET, match)
	}
	if err == nil && ipv6 {
		err = h.deleteFlows(unix.AF_INET6, match)
	}
	return err
}

func (h *Host) deleteFlows(family netlink.InetFamily, match func(Flow) bool) error {
	err := h.tracking(func(handle *netlink.Handle) error {
		_, err := handle.ConntrackDeleteFilters(netlink.ConntrackTable, family, flowFilter(match))
		return err
	})
	if err != nil {
		return fmt.Errorf("deleting flows (see: conntrack -L): %w", err)
	}
	return nil
}

// Flows returns the conversations of the machine.
func (h *Host) Flows() ([]Flow, error) {
	if count, err := h.ReadSysctl("", "net/netfilter/nf_conntrack_count"); err == nil && count == "0" {
		return nil, nil
	}
	var flows []Flow
	err := h.tracking(func(handle *netlink.Handle) error {
		all, err := Dump(func() ([]*netlink.ConntrackFlow, error) {
			return handle.ConntrackTableList(netlink.ConntrackTable, unix.AF_UNSPEC)
		})
		for _, flow := range all {
			flows = append(flows, flowOf(flow))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing flows (see: conntrack -L): %w", err)
	}
	return flows, nil
}

// tracking runs fn with the connection tracking socket, which stays open
// because closing one waits for what nftables deletes.
func (h *Host) tracking(fn func(*netlink.Handle) error) error {
	d, err := h.door("")
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flows == nil {
		err = d.through(func(fd int) (err error) {
			d.flows, err = netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_NETFILTER)
			return err
		})
		if err != nil {
			d.flows = nil
			return err
		}
	}
	return fn(d.flows)
}

type flowFilter func(Flow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flowOf(flow)) }

func flowOf(flow *netlink.ConntrackFlow) Flow {
	protocols := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}
	at := func(ip net.IP, port uint16) netip.AddrPort {
		addr, _ := netip.AddrFromSlice(ip)
		return netip.AddrPortFrom(addr.Unmap(), port)
	}
	return Flow{
		Protocol: protocols[flow.Forward.Protocol],
		From:     at(flow.Forward.SrcIP, flow.Forward.SrcPort),
		To:       at(flow.Forward.DstIP, flow.Forward.DstPort),
		Server:   at(flow.Reverse.SrcIP, flow.Reverse.SrcPort),
	}
}

// Addresses returns the addresses that the machine's own links have.
func (h *Host) Addresses() (map[netip.Addr]bool, error) {
	links, err := h.Links("")
	if err != nil {
		return nil, err
	}
	list, err := Dump(func() ([]netlink.Addr, error) { return links.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("listing the host's addresses (see: ip addr): %w", err)
	}
	own := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			own[addr.Unmap()] = true
		}
	}
	return own, nil
}
