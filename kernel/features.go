package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Feature is a part of the kernel that may have been left out when it was
// built, or whose module is missing.
type Feature struct {
	Name string // as modinfo(8) or the kernel's configuration calls it
	For  string // who needs it
}

// MissingFeatures returns those of all that networks may need that this kernel
// lacks. It tries them out, in a network namespace that goes with the attempt.
func (h *Host) MissingFeatures() ([]Feature, error) {
	var missing []Feature
	err := onThrowawayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace to try features in: %w", err)
		}
		for _, kind := range []Feature{
			{"bridge", "networks of driver bridge"},
			{"veth", "every container's link"},
			{"macvlan", "networks of driver macvlan"},
			{"vxlan", "networks that span hosts"},
		} {
			if lacks(kind.Name) {
				missing = append(missing, kind)
			}
		}
		if err := tryMasquerade(); err != nil {
			missing = append(missing, Feature{"nft_masq", "the nftables backend of the firewall (" + err.Error() + ")"})
		}
		if _, err := os.Stat("/proc/thread-self/net/if_inet6"); err != nil {
			missing = append(missing, Feature{"ipv6", "networks with IPv6"})
		}
		return nil
	})
	return missing, err
}

// LacksLink tells whether the kernel knows no links of a kind.
func LacksLink(kind string) (missing bool, err error) {
	err = onThrowawayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace to try a link of kind %s in: %w", kind, err)
		}
		missing = lacks(kind)
		return nil
	})
	return missing, err
}

func lacks(kind string) bool { return errors.Is(tryLink(kind), unix.EOPNOTSUPP) }

// tryLink asks for a link of a kind, in the namespace of the thread. Some kinds
// want more than their name and refuse for that; an unknown kind is EOPNOTSUPP.
func tryLink(kind string) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("try-"+kind)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func tryMasquerade() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Name: "try", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Name: "try", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Masq{}}})
	return conn.Flush()
}

// Uplinks returns the names of the foreign links that have a way to other
// networks, each once: those with a route by way of a gateway.
func (h *Host) Uplinks() ([]string, error) {
	table, err := h.routeTable()
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	var names []string
	for _, route := range table {
		if route.Via && !seen[route.Link] {
			seen[route.Link] = true
			names = append(names, route.Link)
		}
	}
	return names, nil
}

// routeEntry is a route of the main table to a foreign link.
type routeEntry struct {
	Route
	Via bool // by way of a gateway
}

// RoutedPrefixes returns all prefixes that the machine has a route to by a
// foreign link, straight or by way of a gateway. Unlike Routes it dumps them.
func (h *Host) RoutedPrefixes() ([]Route, error) {
	table, err := h.routeTable()
	if err != nil {
		return nil, err
	}
	var routes []Route
	for _, entry := range table {
		if entry.To.IsValid() {
			routes = append(routes, entry.Route)
		}
	}
	return routes, nil
}

func (h *Host) routeTable() ([]routeEntry, error) {
	handle, err := h.Links("")
	if err != nil {
		return nil, err
	}
	all, err := Dump(func() ([]netlink.Route, error) { return handle.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing the routes of the host (see: ip route): %w", err)
	}
	links, err := Dump(handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing the links of the host (see: ip link): %w", err)
	}
	names := make(map[int]string)
	for _, link := range links {
		if attrs := link.Attrs(); attrs.Group != Mark && attrs.Group != Doomed {
			names[attrs.Index] = attrs.Name
		}
	}
	var table []routeEntry
	for _, route := range all {
		if names[route.LinkIndex] == "" || route.Table != unix.RT_TABLE_MAIN || route.Type != unix.RTN_UNICAST {
			continue
		}
		entry := routeEntry{Route: Route{Link: names[route.LinkIndex]}, Via: route.Gw != nil || route.Via != nil}
		if route.Dst != nil {
			if addr, ok := netip.AddrFromSlice(route.Dst.IP); ok {
				ones, _ := route.Dst.Mask.Size()
				entry.To = netip.PrefixFrom(addr, ones)
			}
		}
		table = append(table, entry)
	}
	return table, nil
}
