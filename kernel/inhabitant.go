package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Inhabitant is a process that lives at the far end of a link.
type Inhabitant struct {
	Link string // in the machine's own namespace
	PID  int
	Name string // as ps -o comm
}

func (i Inhabitant) String() string {
	return fmt.Sprintf("process %d (%s) lives at the far end of link %s (see: ls -l /proc/%d/ns/net)", i.PID, i.Name, i.Link, i.PID)
}

// Inhabitants returns a process for each of some links of the machine's own
// namespace whose far end is in a namespace that has any. It looks through all
// processes, so it is not for every day.
func (h *Host) Inhabitants(links []string) (found []Inhabitant, err error) {
	handle, err := h.Links("")
	if err != nil {
		return nil, err
	}
	far := make(map[int]string) // by the number that the kernel has for the namespace
	for _, name := range links {
		if link, err := handle.LinkByName(name); err == nil && link.Attrs().NetNsID >= 0 {
			far[link.Attrs().NetNsID] = name
		}
	}
	if len(far) == 0 {
		return nil, nil
	}
	processes, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	for _, path := range processes {
		ns, err := os.Open(path)
		if err != nil {
			continue // it has ended
		}
		id, err := handle.GetNetNsIdByFd(int(ns.Fd()))
		ns.Close() //nolint:errcheck // nothing was written
		name, lives := far[id]
		if err != nil || !lives {
			continue
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(path, "/proc/"), "/")
		comm, _ := os.ReadFile("/proc/" + number + "/comm") //nolint:errcheck // without a name the number must do
		pid, _ := strconv.Atoi(number)                      //nolint:errcheck // the pattern says so
		found = append(found, Inhabitant{name, pid, strings.TrimSpace(string(comm))})
		delete(far, id)
	}
	return found, nil
}
