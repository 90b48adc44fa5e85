package nstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/kernel"
)

// Dump returns the network state of the machine and of namespaces that it
// pinned, as sorted text of one fact a line: links with all their attributes,
// addresses, routes, rules, permanent neighbours, forwarding entries, queueing
// disciplines that somebody set, the nft ruleset, and the sysctls under net that differ from those of a new
// namespace. With no names it covers every pinned namespace but the machines.
//
// Doomed links get the time that the reaper needs before they show. Two
// machines that went the same way dump equal: left out is what the kernel
// numbers (interface indices, handles), counts (packets, learned entries),
// does on its own some time later (operstate, port state, the link-local
// address made from a MAC) and names by chance (the machine itself is called
// host). Not covered are files, processes, and rules of the legacy iptables back
// end.
//
// The tools ip, bridge, tc and nft do the reading, not the library that the code
// under test writes with: a mistake of the one is not hidden by the other.
func (m *Machine) Dump(tb testing.TB, pinned ...string) string {
	tb.Helper()
	if len(pinned) == 0 {
		names, err := pins()
		if err != nil {
			tb.Fatal(err)
		}
		for _, line := range names {
			pinned = append(pinned, strings.Fields(line)[2])
		}
	}
	if err := m.reaped(); err != nil {
		tb.Fatal(err)
	}
	d := dumper{machine: m.name, views: make(map[string]*view)}
	spaces := append([]string{m.name}, slices.Sorted(slices.Values(pinned))...)
	for _, ns := range spaces {
		v, err := look(ns)
		if err != nil {
			tb.Fatal(err)
		}
		d.views[ns] = v
	}
	for _, ns := range spaces {
		fmt.Fprintf(&d.text, "== %s ==\n", d.called(ns))
		for _, section := range []func(string) []string{d.links, d.addresses, d.routes, d.rules, d.neighbours, d.forwarding, d.queues} {
			d.sorted(section(ns))
		}
		for line := range strings.Lines(d.views[ns].ruleset) {
			if line = strings.TrimRight(line, "\n"); line != "" {
				d.text.WriteString("nft " + line + "\n") // in its own order: rules have one
			}
		}
		d.sorted(m.sysctls(tb, ns).beyond(m.fresh))
	}
	return d.text.String()
}

// reaped waits until the machine has no doomed link any more, but no longer
// than they may take. Asking for them alone is cheap beside a dump in vain.
func (m *Machine) reaped() error {
	var err error
	Until(patience, func() bool {
		var raw []byte
		raw, err = inNetns(kernel.Pin(m.name), "ip", "-brief", "link", "show", "group", fmt.Sprint(kernel.Doomed))
		return err != nil || len(raw) == 0
	})
	return err
}

// Diff returns the lines by which two dumps differ, each with its namespace:
// "- " only in a, "+ " only in b. It is empty if they are equal.
func Diff(a, b string) string {
	left, right := located(a), located(b)
	var out []string
	for _, line := range left {
		if !slices.Contains(right, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range right {
		if !slices.Contains(left, line) {
			out = append(out, "+ "+line)
		}
	}
	if len(out) == 0 && a != b {
		out = append(out, "the same lines, but not in the same order or number")
	}
	return strings.Join(out, "\n")
}

func located(dump string) []string {
	var lines []string
	place := ""
	for line := range strings.Lines(dump) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "== ") {
			place = strings.Trim(line, "= ")
		}
		lines = append(lines, place+": "+line)
	}
	return lines
}

// view is a namespace as the tools show it.
type view struct {
	links, addresses, neighbours, proxies, ids []map[string]any
	routes, rules                              [2][]map[string]any // IPv4, IPv6
	forwarding, vlans, queues                  []map[string]any
	ruleset                                    string
}

// looking asks each tool but once, since starting one takes longer than its
// answer. Every line of a batch is answered by one JSON array.
const looking = `
ip -json -details -batch - <<'EOF'
link show
address show
neigh show nud permanent
neigh show proxy
netns list-id
EOF
for family in -4 -6; do ip $family -json -details -batch - <<'EOF'
route show table all
rule show
EOF
done
bridge -json -batch - <<'EOF'
fdb show
vlan show
EOF
tc -json qdisc show
echo; echo "-- ruleset"
exec nft --stateless list ruleset
`

func look(ns string) (*view, error) {
	raw, err := inNetns(kernel.Pin(ns), "sh", "-euc", looking)
	if err != nil {
		return nil, err
	}
	answers, ruleset, _ := strings.Cut(string(raw), "\n-- ruleset\n")
	v := &view{ruleset: ruleset}
	decoder := json.NewDecoder(strings.NewReader(answers))
	decoder.UseNumber() // 4294967295 is "for ever", not 4.29e+09
	for _, part := range []*[]map[string]any{
		&v.links, &v.addresses, &v.neighbours, &v.proxies, &v.ids,
		&v.routes[0], &v.rules[0], &v.routes[1], &v.rules[1], &v.forwarding, &v.vlans, &v.queues,
	} {
		if err := decoder.Decode(part); err != nil {
			return nil, fmt.Errorf("reading what ip, bridge and tc say of %s: %w", ns, err)
		}
		*part = slices.DeleteFunc(*part, func(o map[string]any) bool { return len(o) == 0 })
	}
	if decoder.More() {
		return nil, fmt.Errorf("reading what ip, bridge and tc say of %s: more answers than questions", ns)
	}
	return v, nil
}

// dumper collects the text of a dump.
type dumper struct {
	machine string
	views   map[string]*view
	text    strings.Builder
}

// called replaces the names that differ from run to run.
func (d *dumper) called(ns string) string {
	switch {
	case ns == d.machine:
		return "host"
	case strings.HasPrefix(ns, machinePrefix):
		return "another machine"
	}
	return ns
}

func (d *dumper) sorted(lines []string) {
	slices.Sort(lines)
	for _, line := range lines {
		d.text.WriteString(line)
		d.text.WriteByte('\n')
	}
}

// linkName returns the name of the link with an interface index.
func (d *dumper) linkName(ns string, index int) string {
	if v := d.views[ns]; v != nil {
		for _, link := range v.links {
			if number(link["ifindex"]) == index {
				return fmt.Sprint(link["ifname"])
			}
		}
	}
	return "a link"
}

// passing lists the attributes of links that say nothing about what was done.
var passing = map[string]bool{
	"ifindex": true, "ifname": true, "link_index": true, "link": true, "link_netnsid": true, "flags": true,
	"operstate": true, "state": true, "fdb_n_learned": true, "addr_info": true, "promiscuity": true,
	"qdisc":        true,                       // noqueue once it was up, noop before
	"tso_max_size": true, "tso_max_segs": true, // a bridge takes those of the ports that it has, or had
}

func (d *dumper) links(ns string) []string {
	peers := make(map[int]string)
	for _, id := range d.views[ns].ids {
		if name, ok := id["name"]; ok {
			peers[number(id["nsid"])] = fmt.Sprint(name)
		}
	}
	var lines []string
	for _, link := range d.views[ns].links {
		name := "link " + fmt.Sprint(link["ifname"])
		lines = append(lines, name)
		for _, flag := range list(link["flags"]) {
			switch flag {
			case "LOWER_UP", "NO-CARRIER", "M-DOWN": // follow from the other end, some time later
			default:
				lines = append(lines, fmt.Sprintf("%s flag %v", name, flag))
			}
		}
		if id, far := link["link_netnsid"]; far {
			peer := peers[number(id)]
			lines = append(lines, fmt.Sprintf("%s peer %s in %s", name, d.linkName(peer, number(link["link_index"])), d.called(peer)))
		} else if near, ok := link["link"]; ok {
			lines = append(lines, fmt.Sprintf("%s peer %v in %s", name, near, d.called(ns)))
		}
		flatten(name, link, func(line, key string) {
			if !passing[key] && !strings.HasSuffix(key, "_timer") {
				lines = append(lines, line)
			}
		})
	}
	return lines
}

func (d *dumper) addresses(ns string) []string {
	var lines []string
	for _, link := range d.views[ns].addresses {
		for _, item := range list(link["addr_info"]) {
			addr, _ := item.(map[string]any)
			if addr["local"] == linkLocal(fmt.Sprint(link["address"])) {
				continue
			}
			delete(addr, "tentative") // while detection of duplicates is under way
			lines = append(lines, fmt.Sprintf("address on %v: %s", link["ifname"], words(addr)))
		}
	}
	return lines
}

// linkLocal returns the address that the kernel gives a link with this MAC by
// itself (RFC 4291 appendix A).
func linkLocal(mac string) string {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(hw) != 6 {
		return ""
	}
	raw := [16]byte{0xfe, 0x80, 8: hw[0] ^ 2, 9: hw[1], 10: hw[2], 11: 0xff, 12: 0xfe, 13: hw[3], 14: hw[4], 15: hw[5]}
	return netip.AddrFrom16(raw).String()
}

func (d *dumper) routes(ns string) []string {
	var lines []string
	for i, family := range []string{"-4", "-6"} {
		for _, route := range d.views[ns].routes[i] {
			dst := fmt.Sprint(route["dst"])
			if route["protocol"] == "kernel" && (strings.HasPrefix(dst, "fe80:") || strings.HasPrefix(dst, "ff00:")) {
				continue // come with a link-local address, later
			}
			delete(route, "flags") // linkdown and dead follow the carrier
			lines = append(lines, fmt.Sprintf("route %s %s", family, words(route)))
		}
	}
	return lines
}

func (d *dumper) rules(ns string) []string {
	var lines []string
	for i, family := range []string{"-4", "-6"} {
		for _, rule := range d.views[ns].rules[i] {
			lines = append(lines, fmt.Sprintf("rule %s %s", family, words(rule)))
		}
	}
	return lines
}

func (d *dumper) neighbours(ns string) []string {
	var lines []string
	for _, n := range d.views[ns].neighbours {
		lines = append(lines, "neighbour "+words(n))
	}
	for _, n := range d.views[ns].proxies {
		lines = append(lines, "proxied neighbour "+words(n))
	}
	return lines
}

// forwarding lists the forwarding entries and VLANs that somebody set: not
// those that a bridge learned, nor the multicast filters of a link itself.
func (d *dumper) forwarding(ns string) []string {
	var lines []string
	for _, entry := range d.views[ns].forwarding {
		_, remote := entry["dst"]
		set := entry["state"] == "permanent" || entry["state"] == "static"
		if set && (remote || !slices.Contains(list(entry["flags"]), any("self"))) {
			lines = append(lines, "fdb "+words(entry))
		}
	}
	for _, vlan := range d.views[ns].vlans {
		lines = append(lines, "vlan "+words(vlan))
	}
	return lines
}

// queues lists the queueing disciplines that somebody set: those that a link has
// by itself have no number.
func (d *dumper) queues(ns string) []string {
	var lines []string
	for _, queue := range d.views[ns].queues {
		if queue["handle"] != "0:" {
			delete(queue, "refcnt")
			lines = append(lines, "qdisc "+words(queue))
		}
	}
	return lines
}

// inNetns runs a command in the network namespace at path. It enters through a
// Host of its own, never through the one under test, whose doors may be stale.
func inNetns(path, tool string, args ...string) ([]byte, error) {
	host, err := kernel.OpenAt(path)
	if err != nil {
		return nil, err
	}
	defer host.Close()
	var out []byte
	err = host.Inside("", func() error {
		out, err = exec.Command(tool, args...).Output()
		return err
	})
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("running %s %s in %s: %w", tool, strings.Join(args, " "), path, err)
	}
	return out, nil
}

// flatten calls yield with a line for each leaf of a tree of attributes.
func flatten(prefix string, tree map[string]any, yield func(line, key string)) {
	for key, value := range tree {
		switch value := value.(type) {
		case map[string]any:
			flatten(prefix+" "+key, value, yield)
		default:
			yield(fmt.Sprintf("%s %s %v", prefix, key, value), key)
		}
	}
}

// words prints an object with its keys in order.
func words(o map[string]any) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(o)) {
		parts = append(parts, fmt.Sprintf("%s %v", key, o[key]))
	}
	return strings.Join(parts, " ")
}

func list(v any) []any {
	items, _ := v.([]any)
	return items
}

func number(v any) int {
	n, _ := v.(json.Number)
	i, _ := n.Int64()
	return int(i)
}
