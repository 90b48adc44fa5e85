package kernel

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Stack is what somebody set in a namespace beside its links and their addresses.
type Stack struct {
	Routes []StackRoute
	Rules  []string // of routing (ip rule), those that every namespace has left out
	Fixed  []string // neighbours: "10.0.0.1 dev eth0 lladdr 02:…"
	Tables []string // of nftables: "inet filter"
}

// StackRoute is a route that no address brought along.
type StackRoute struct {
	To     netip.Prefix
	Via    netip.Addr // not valid: straight out of the link
	Link   string
	Simple bool   // there is no more to it: main table, no metric, one way
	Text   string // as the kernel has it, for a reader
}

// Stack reads what is set in a namespace, "" for the machine's own.
func (h *Host) Stack(ns string) (Stack, error) {
	var s Stack
	handle, err := h.Links(ns)
	if err != nil {
		return s, err
	}
	names, err := linkNames(handle)
	if err != nil {
		return s, fmt.Errorf("listing the links of %s (see: ip link): %w", nameOf(ns), err)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if err = s.readFamily(handle, family, names); err != nil {
			return s, fmt.Errorf("listing the routes, rules and neighbours of %s (see: ip route, ip rule, ip neigh): %w", nameOf(ns), err)
		}
	}
	err = h.Transact(ns, func(conn *nftables.Conn) error {
		tables, listErr := conn.ListTables()
		for _, table := range tables {
			if table.Family != nftables.TableFamilyNetdev || !strings.HasPrefix(table.Name, LossTable("")) {
				s.Tables = append(s.Tables, familyNames[table.Family]+" "+table.Name)
			}
		}
		return listErr
	})
	if err != nil {
		return s, fmt.Errorf("listing the tables of nftables of %s (see: nft list tables): %w", nameOf(ns), err)
	}
	return s, nil
}

func (s *Stack) readFamily(handle *netlink.Handle, family int, names map[int]string) error {
	routes, err := Dump(func() ([]netlink.Route, error) {
		return handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return err
	}
	for _, route := range routes {
		if route.Protocol != unix.RTPROT_KERNEL && route.Table != unix.RT_TABLE_LOCAL {
			s.Routes = append(s.Routes, stackRoute(route, family, names))
		}
	}
	rules, err := Dump(func() ([]netlink.Rule, error) { return handle.RuleList(family) })
	if err != nil {
		return err
	}
	for _, rule := range rules {
		if !slices.Contains([]int{-1, 0, 32766, 32767}, rule.Priority) {
			s.Rules = append(s.Rules, strings.ToLower(rule.String()))
		}
	}
	neighbours, err := Dump(func() ([]netlink.Neigh, error) { return handle.NeighList(0, family) })
	for _, n := range neighbours {
		if n.State&netlink.NUD_PERMANENT != 0 {
			s.Fixed = append(s.Fixed, fmt.Sprintf("%s dev %s lladdr %s", n.IP, names[n.LinkIndex], n.HardwareAddr))
		}
	}
	return err
}

var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
	nftables.TableFamilyARP: "arp", nftables.TableFamilyNetdev: "netdev", nftables.TableFamilyBridge: "bridge",
}

func linkNames(handle *netlink.Handle) (map[int]string, error) {
	links, err := Dump(handle.LinkList)
	names := make(map[int]string, len(links))
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	return names, err
}

func stackRoute(route netlink.Route, family int, names map[int]string) StackRoute {
	r := StackRoute{Link: names[route.LinkIndex], Text: strings.Trim(route.String(), "{}")}
	usualMetric := 0
	r.To = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if family == unix.AF_INET6 {
		r.To = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		usualMetric = 1024
	}
	if route.Dst != nil {
		if addr, ok := netip.AddrFromSlice(route.Dst.IP); ok {
			bits, _ := route.Dst.Mask.Size()
			r.To = netip.PrefixFrom(addr, bits)
		}
	}
	if via, ok := netip.AddrFromSlice(route.Gw); ok {
		r.Via = via
	}
	usualScope := netlink.SCOPE_UNIVERSE
	if family == unix.AF_INET && !r.Via.IsValid() {
		usualScope = netlink.SCOPE_LINK
	}
	r.Simple = r.Link != "" && route.Table == unix.RT_TABLE_MAIN && route.Type == unix.RTN_UNICAST && route.Priority == usualMetric &&
		len(route.MultiPath) == 0 && route.Via == nil && route.Encap == nil && route.Src == nil && route.MTU == 0 && route.Scope == usualScope
	return r
}

// Sysctls reads what is set under net/, by key with slashes, as a thread in the
// namespace sees it. What can only be written is left out.
func (h *Host) Sysctls(ns string) (map[string]string, error) {
	var all map[string]string
	err := h.Inside(ns, func() (err error) {
		all, err = readSysctls()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the sysctls of %s (see: sysctl net): %w", nameOf(ns), err)
	}
	return all, nil
}

// FreshSysctls reads what is set under net/ in a namespace that nobody has touched.
func FreshSysctls() (map[string]string, error) {
	var all map[string]string
	err := onThrowawayThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			all, err = readSysctls()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the sysctls of a new network namespace: %w", err)
	}
	return all, nil
}

func readSysctls() (map[string]string, error) {
	const root = "/proc/sys/"
	all := make(map[string]string)
	err := filepath.WalkDir(root+"net", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil //nolint:nilerr // a link's directory may vanish under the walk
		}
		if raw, err := os.ReadFile(path); err == nil {
			all[strings.TrimPrefix(path, root)] = strings.Join(strings.Fields(string(raw)), " ")
		}
		return nil
	})
	return all, err
}
