package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Route is an IPv4 or IPv6 route of the machine's own main table.
type Route struct {
	To   netip.Prefix
	Link string
}

// Routes returns the routes that lead straight to a foreign link, without a
// gateway: the prefixes that the machine takes for its neighbourhood. Those to
// links that bear Mark are not among them, nor those to a link that is down.
//
// It dumps them once. Later calls read what the kernel has reported meanwhile,
// so that their cost is that of the changes and of the foreign links, not that
// of all routes. The kernel queues a report before the command that made the
// change returns, so that nothing is missed.
func (h *Host) Routes() ([]Route, error) {
	h.routes.mu.Lock()
	defer h.routes.mu.Unlock()
	if err := h.routes.catchUp(h); err != nil {
		return nil, fmt.Errorf("listing the routes of the host (see: ip route): %w", err)
	}
	return h.routes.list(h)
}

// routeWatch is what is known of the host's routes.
//
//	no socket ──subscribe, dump──▶ known ──reports──▶ known
//	                                 └──reports lost (ENOBUFS)──▶ dump again
type routeWatch struct {
	mu     sync.Mutex
	fd     int // subscribed socket; valid if open
	open   bool
	routes map[onLink]bool
	ours   map[int]bool // links known to be ours, by index: they stay so
}

// onLink is a route straight to a link.
type onLink struct {
	to    netip.Prefix
	index int
	// metric tells two routes of one prefix on one link apart.
	metric int
}

// catchUp brings the routes up to date.
func (w *routeWatch) catchUp(h *Host) error {
	if !w.open {
		if err := w.subscribe(h); err != nil {
			return err
		}
		return w.dump(h)
	}
	for {
		messages, err := w.read()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS): // there were more reports than the socket holds
			return w.dump(h)
		case err != nil:
			return err
		}
		for _, message := range messages {
			w.report(message)
		}
	}
}

// subscribe opens the socket before the dump: a change between the two is
// reported, and may be in the dump as well, which does no harm.
func (w *routeWatch) subscribe(h *Host) error {
	return h.Inside("", func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("opening a netlink socket: %w", err)
		}
		groups := uint32(1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1))
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
			unix.Close(fd)
			return fmt.Errorf("subscribing to the reports about routes: %w", err)
		}
		w.fd, w.open = fd, true
		return nil
	})
}

func (w *routeWatch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open {
		unix.Close(w.fd)
		w.open = false
	}
}

func (w *routeWatch) read() ([]syscall.NetlinkMessage, error) {
	// One report is a few hundred bytes, and the kernel does not join them.
	buffer := make([]byte, nl.RECEIVE_BUFFER_SIZE)
	n, _, err := unix.Recvfrom(w.fd, buffer, 0)
	if err != nil {
		return nil, err
	}
	return syscall.ParseNetlinkMessage(buffer[:n])
}

// report notes one change.
func (w *routeWatch) report(m syscall.NetlinkMessage) {
	route, ok := parseOnLink(m.Data)
	if !ok {
		return
	}
	switch m.Header.Type {
	case unix.RTM_NEWROUTE:
		w.routes[route] = true
	case unix.RTM_DELROUTE:
		delete(w.routes, route)
		delete(w.ours, route.index) // the link may be going; else it is asked for again
	}
}

func (w *routeWatch) dump(h *Host) error {
	w.routes, w.ours = make(map[onLink]bool), make(map[int]bool)
	raw, err := Dump(func() ([][]byte, error) {
		var all [][]byte
		err := h.Inside("", func() error {
			request := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
			request.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_UNSPEC}})
			var dumpErr error
			all, dumpErr = request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
			return dumpErr
		})
		return all, err
	})
	if err != nil {
		return err
	}
	for _, message := range raw {
		if route, ok := parseOnLink(message); ok {
			w.routes[route] = true
		}
	}
	return nil
}

// list names the links of the routes. Links of ours are asked for once.
func (w *routeWatch) list(h *Host) ([]Route, error) {
	links, err := h.Links("")
	if err != nil {
		return nil, err
	}
	foreign := make(map[int]*netlink.LinkAttrs)
	routes := make([]Route, 0, len(w.routes))
	for route := range w.routes {
		if w.ours[route.index] {
			delete(w.routes, route) // the store knows more about it
			continue
		}
		attrs, asked := foreign[route.index]
		if !asked {
			link, err := links.LinkByIndex(route.index)
			if err != nil && !IsGone(err) {
				return nil, fmt.Errorf("looking up link %d: %w", route.index, err)
			}
			if err == nil {
				attrs = link.Attrs()
			}
			if attrs != nil && (attrs.Group == Mark || attrs.Group == Doomed) {
				w.ours[route.index] = true
			}
			foreign[route.index] = attrs
		}
		switch {
		case attrs == nil, attrs.RawFlags&unix.IFF_UP == 0:
			// The kernel drops the IPv4 routes of such a link without a report.
			delete(w.routes, route)
		case w.ours[route.index]:
			delete(w.routes, route)
		default:
			routes = append(routes, Route{To: route.to, Link: attrs.Name})
		}
	}
	return routes, nil
}

// parseOnLink reads a route message (rtnetlink(7)), and tells whether it is
// about a route of the main table that leads straight to one link.
func parseOnLink(data []byte) (onLink, bool) {
	var route onLink
	if len(data) < unix.SizeofRtMsg {
		return route, false
	}
	header := nl.DeserializeRtMsg(data)
	attrs, err := nl.ParseRouteAttr(data[unix.SizeofRtMsg:])
	if err != nil || header.Type != unix.RTN_UNICAST || header.Dst_len == 0 {
		return route, false
	}
	native := nl.NativeEndian()
	table := uint32(header.Table)
	for _, attr := range attrs {
		switch attr.Attr.Type {
		case unix.RTA_DST:
			if addr, ok := netip.AddrFromSlice(attr.Value); ok {
				route.to = netip.PrefixFrom(addr, int(header.Dst_len))
			}
		case unix.RTA_OIF:
			route.index = int(native.Uint32(attr.Value))
		case unix.RTA_PRIORITY:
			route.metric = int(native.Uint32(attr.Value))
		case unix.RTA_TABLE:
			table = native.Uint32(attr.Value)
		case unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH:
			return route, false
		}
	}
	return route, route.to.IsValid() && route.index != 0 && table == unix.RT_TABLE_MAIN
}
