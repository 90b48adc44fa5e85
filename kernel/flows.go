package kernel

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
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
// that there are then. Rules of address translation see nothing else. It
// returns how many there were.
func (h *Host) DeleteFlows(ipv6 bool, match func(Flow) bool) (int, error) {
	d, err := h.door("")
	if err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flows == nil {
		// It stays open, because closing one waits for what nftables deletes.
		if d.flows, err = netlink.NewHandleAt(d.ns, unix.NETLINK_NETFILTER); err != nil {
			d.flows = nil
			return 0, fmt.Errorf("opening a connection tracking socket: %w", err)
		}
	}
	family := netlink.InetFamily(unix.AF_INET)
	if ipv6 {
		family = unix.AF_INET6
	}
	n, err := d.flows.ConntrackDeleteFilters(netlink.ConntrackTable, family, flowFilter(match))
	if err != nil {
		return int(n), fmt.Errorf("deleting flows (see: conntrack -L): %w", err)
	}
	return int(n), nil
}

// Flows returns the conversations of one family.
func (h *Host) Flows(ipv6 bool) ([]Flow, error) {
	var flows []Flow
	_, err := h.DeleteFlows(ipv6, func(f Flow) bool {
		flows = append(flows, f)
		return false
	})
	return flows, err
}

type flowFilter func(Flow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	protocols := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}
	at := func(ip net.IP, port uint16) netip.AddrPort {
		addr, _ := netip.AddrFromSlice(ip)
		return netip.AddrPortFrom(addr.Unmap(), port)
	}
	return f(Flow{
		Protocol: protocols[flow.Forward.Protocol],
		From:     at(flow.Forward.SrcIP, flow.Forward.SrcPort),
		To:       at(flow.Forward.DstIP, flow.Forward.DstPort),
		Server:   at(flow.Reverse.SrcIP, flow.Reverse.SrcPort),
	})
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
