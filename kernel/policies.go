package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// DropPolicy is a base chain that drops the forwarded packets that none of its
// rules has accepted.
type DropPolicy struct {
	Family string // ip, ip6 or inet
	Table  string
	Chain  string
	Legacy bool // of the older firewall, x_tables, which nft does not show
}

// Show returns the command that shows the chain.
func (p DropPolicy) Show() string {
	switch {
	case p.Legacy && p.Family == "ip6":
		return "ip6tables-legacy -S " + p.Chain
	case p.Legacy:
		return "iptables-legacy -S " + p.Chain
	}
	return fmt.Sprintf("nft list chain %s %s %s", p.Family, p.Table, p.Chain)
}

// Accept returns the command that turns the policy around.
func (p DropPolicy) Accept() string {
	switch {
	case p.Legacy && p.Family == "ip6":
		return "ip6tables-legacy -P " + p.Chain + " ACCEPT"
	case p.Legacy:
		return "iptables-legacy -P " + p.Chain + " ACCEPT"
	}
	return fmt.Sprintf("nft 'chain %s %s %s { policy accept; }'", p.Family, p.Table, p.Chain)
}

// ForwardDropPolicies returns the chains of the machine's own namespace that
// drop what they do not accept, of both firewalls that the kernel has.
func (h *Host) ForwardDropPolicies() ([]DropPolicy, error) {
	var found []DropPolicy
	err := h.Transact("", func(conn *nftables.Conn) error {
		chains, err := conn.ListChains()
		if err != nil {
			return fmt.Errorf("listing the chains of nftables (see: nft list chains): %w", err)
		}
		families := map[nftables.TableFamily]string{
			nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
		}
		for _, chain := range chains {
			family, routed := families[chain.Table.Family]
			if routed && chain.Hooknum != nil && *chain.Hooknum == *nftables.ChainHookForward && chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
				found = append(found, DropPolicy{Family: family, Table: chain.Table.Name, Chain: chain.Name})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = h.Inside("", func() error {
		for _, table := range legacyTables {
			drops, failed := table.drops()
			if failed != nil {
				return failed
			}
			if drops {
				found = append(found, DropPolicy{Family: table.family, Table: "filter", Chain: "FORWARD", Legacy: true})
			}
		}
		return nil
	})
	return found, err
}

// legacyTable is where one address family's x_tables are found, and how an
// entry of them is laid out (linux/netfilter_ipv4/ip_tables.h and its IPv6
// sister).
type legacyTable struct {
	family string
	names  string // file that lists the tables that somebody has used
	domain int
	level  int
	target int // offset, within an entry, of the offset of its target
}

var legacyTables = [...]legacyTable{
	{"ip", "/proc/thread-self/net/ip_tables_names", unix.AF_INET, unix.SOL_IP, 88},
	{"ip6", "/proc/thread-self/net/ip6_tables_names", unix.AF_INET6, unix.SOL_IPV6, 140},
}

// drops tells whether chain FORWARD of table filter has the policy DROP. It
// asks only for a table that exists, since asking would make it.
func (l legacyTable) drops() (bool, error) {
	names, err := os.ReadFile(l.names)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the kernel has no x_tables
	}
	if err != nil {
		return false, fmt.Errorf("reading the names of tables: %w", err)
	}
	if !slices.Contains(strings.Fields(string(names)), "filter") {
		return false, nil
	}
	fd, err := unix.Socket(l.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return false, fmt.Errorf("opening a socket to ask for table filter: %w", err)
	}
	defer unix.Close(fd)
	const (
		getInfo, getEntries = 64, 65 // IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES
		forward             = 2      // NF_INET_FORWARD
		infoSize            = 84     // name, hooks, 5 entry points, 5 underflows, number, size
		underflows          = 56
		head                = 40 // name and size, aligned
	)
	info := make([]byte, infoSize)
	copy(info, "filter")
	if err := getsockopt(fd, l.level, getInfo, info); err != nil {
		return false, fmt.Errorf("asking for table filter (see: iptables-legacy -S): %w", err)
	}
	native := binary.NativeEndian
	size, policy := native.Uint32(info[80:]), native.Uint32(info[underflows+4*forward:])
	entries := make([]byte, head+int(size))
	copy(entries, "filter")
	native.PutUint32(entries[32:], size)
	if err := getsockopt(fd, l.level, getEntries, entries); err != nil {
		return false, fmt.Errorf("asking for the rules of table filter (see: iptables-legacy -S): %w", err)
	}
	return l.verdictDrops(entries[head:], policy), nil
}

// verdictDrops reads the entry that a chain ends with. Its target is the
// standard one: a header of 32 bytes with an empty name, then the verdict.
func (l legacyTable) verdictDrops(entries []byte, at uint32) bool {
	native := binary.NativeEndian
	if int(at)+l.target+2 > len(entries) {
		return false
	}
	target := int(at) + int(native.Uint16(entries[int(at)+l.target:]))
	if target+36 > len(entries) || !bytes.Equal(entries[target+2:target+3], []byte{0}) {
		return false
	}
	const drop = -1 // -NF_DROP - 1
	return int32(native.Uint32(entries[target+32:])) == drop
}

func getsockopt(fd, level, option int, buffer []byte) error {
	length := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
