package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// starts measures starts of containers that differ in their ports, in turns. Each
// is made before and removed after, unmeasured.
type variant struct {
	engine *engine
	ports  []string
	seen   func(id string) // while it runs
}

func starts(t *testing.T, rounds int, network string, variants ...variant) []sample {
	t.Helper()
	samples := make([]sample, len(variants))
	for range rounds {
		for i, v := range variants {
			id := v.engine.create(t, "measured", network, v.ports...)
			samples[i].took(func() { v.engine.start(t, id) })
			if v.seen != nil {
				v.seen(id)
			}
			v.engine.remove(t, id)
		}
	}
	return samples
}

// ports measures what publishing costs: one port beside none and beside many, and
// long ranges.
func ports(t *testing.T) []figure {
	m := machines(t, 2)
	empty, full := start(t, m[0]), start(t, m[1])
	var many []string
	for i := range size(10, 10_000) {
		many = append(many, fmt.Sprintf("%d:80/tcp", 10_001+i)) // no two of them make a range
	}
	for _, e := range []*engine{empty, full} {
		e.network(t, "lab", "10.77.0.0/24", "fd77::/64")
	}
	// Half the sockets: each needs a descriptor on the way.
	full.machine.Sh(t, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1; sysctl -qw net.ipv6.conf.lo.disable_ipv6=1")
	full.up(t, "many", many...)
	full.machine.Sh(t, "sysctl -qw net.ipv6.conf.all.disable_ipv6=0; sysctl -qw net.ipv6.conf.lo.disable_ipv6=0")
	var long []string
	for i := range size(5, 1001) {
		long = append(long, fmt.Sprintf("%[1]d:%[1]d/tcp", 50_000+i), fmt.Sprintf("%[1]d:%[1]d/udp", 50_000+i))
	}
	var plain, ranged cost
	s := starts(
		t, size(1, 30), "lab",
		variant{empty, nil, func(id string) { plain = costOf(t, empty, id) }},
		variant{empty, []string{"8080:80/tcp"}, nil},
		variant{full, []string{"8080:80/tcp"}, nil},
		variant{empty, long, func(id string) { ranged = costOf(t, empty, id) }},
	)
	adds := s[3].median() - s[0].median()
	return []figure{
		times("1 port beside 10,000, against beside none", s[2], s[1], 1.2),
		{what: "1,001 ports x tcp/udp x IPv4/IPv6 add to a start", got: ms(adds), unit: "ms", target: 50, note: fmt.Sprintf("%s against %s; of the fastest %s", s[3], s[0], millis(s[3].fastest()-s[0].fastest()))},
		{what: "the same: processes", got: float64(ranged.processes - plain.processes), target: 0},
		{what: "the same: memory", got: float64(ranged.resident-plain.resident) / 1024, unit: "MB", target: 10, note: "of the shim"},
		{what: "1 port adds to a start", got: ms(s[1].median() - s[0].median()), unit: "ms", target: 2, note: fmt.Sprintf("%s against %s", s[1], s[0])},
	}
}

// cost is what runs for a container.
type cost struct {
	processes int // below the daemon
	resident  int // kB, of the shim
}

func costOf(t *testing.T, e *engine, id string) cost {
	t.Helper()
	parents := make(map[int]int)
	stats, err := filepath.Glob("/proc/[0-9]*/status")
	must(t, err)
	for _, file := range stats {
		parents[atoi(filepath.Base(filepath.Dir(file)))] = status(file, "PPid")
	}
	var c cost
	for pid := range parents {
		for up := parents[pid]; up > 1; up = parents[up] {
			if up == e.daemon.Process.Pid {
				c.processes++
				break
			}
		}
	}
	c.resident = status(fmt.Sprintf("/proc/%d/status", parents[e.pid(t, id)]), "VmRSS")
	return c
}

// status reads a number of proc(5)'s status; 0 for a process that is gone.
func status(file, field string) int {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if value, found := strings.CutPrefix(line, field+":"); found {
			return atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		}
	}
	return 0
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// thirtyTwo are ports that make no range.
func thirtyTwo() (list []string) {
	for i := range 32 {
		list = append(list, fmt.Sprintf("%d:%d/tcp", 60_000+2*i, 1+i))
	}
	return list
}
