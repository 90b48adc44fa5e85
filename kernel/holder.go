package kernel

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder is who has a port. PID 0 means that no process could be found: it
// belongs to another PID namespace, or the port to a connection.
type Holder struct {
	PID    int
	Name   string // as ps -o comm
	lookUp string // the command that shows it
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "see: " + h.lookUp
	}
	return fmt.Sprintf("process %d (%s) holds it (see: %s)", h.PID, h.Name, h.lookUp)
}

// PortHolder finds out who is in the way of holding a port, by the tables that
// ss reads (proc(5), /proc/net/tcp) and the open files of all processes.
func (h *Host) PortHolder(hold Hold) Holder {
	flag := map[string]string{"tcp": "t", "udp": "u", "sctp": "S"}[hold.Protocol]
	found := Holder{lookUp: fmt.Sprintf("ss -l%snp sport = :%d", flag, hold.At.Port())}
	var inodes []string
	h.Inside("", func() error { //nolint:errcheck // whoever cannot be found is not named
		for _, table := range []string{hold.Protocol, hold.Protocol + "6"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + table)
			if err == nil {
				inodes = append(inodes, holders(string(text), hold)...)
			}
		}
		return nil
	})
	if len(inodes) > 0 {
		found.PID, found.Name = ownerOf(inodes)
	}
	return found
}

// holders returns the inodes of the sockets in a table that exclude a new one.
func holders(table string, hold Hold) []string {
	var inodes []string
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		const address, state, inode, listening = 1, 3, 9, "0A"
		if len(fields) <= inode || hold.Protocol == "tcp" && fields[state] != listening {
			continue
		}
		at, ok := parseHexAddress(fields[address])
		same := ok && at.Port() == hold.At.Port()
		if same && (at.Addr() == hold.At.Addr() || at.Addr().IsUnspecified() || hold.At.Addr().IsUnspecified()) {
			inodes = append(inodes, fields[inode])
		}
	}
	return inodes
}

// parseHexAddress reads 0100007F:1F90: words of four bytes in the machine's
// order (little-endian wherever Docker runs), and a port.
func parseHexAddress(text string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), ok
}

// ownerOf finds a process that has one of the sockets open.
func ownerOf(inodes []string) (pid int, name string) {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, ""
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		if err != nil || !isSocket || !slices.Contains(inodes, strings.TrimSuffix(inode, "]")) {
			continue
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(link, "/proc/"), "/")
		if pid, err = strconv.Atoi(number); err != nil || pid == os.Getpid() {
			continue
		}
		comm, err := os.ReadFile("/proc/" + number + "/comm")
		if err == nil {
			return pid, strings.TrimSpace(string(comm))
		}
	}
	return 0, ""
}
