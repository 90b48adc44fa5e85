package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
)

// Severity says how much a finding matters.
type Severity string

// The severities of findings.
const (
	Broken  Severity = "broken"  // packets are lost now
	Warning Severity = "warning" // packets are lost in some case
	Note    Severity = "note"    // worth knowing when something else is wrong
)

// Finding is one named reason for trouble.
type Finding struct {
	Reason   string   // never changes: "ip-forward"
	Severity Severity //
	What     string   // what is the case, with its holder
	So       string   // what follows from it
	Remedy   string   // a command, or what to do

	// Repairable findings are the engine's own: linkspan doctor --repair ends them.
	Repairable bool `json:",omitempty"`
}

// The reasons, each a name for scripts to go by.
const (
	ReasonForward4       = "ip-forward"
	ReasonForward6       = "ipv6-forwarding"
	ReasonDropPolicy     = "foreign-drop-policy"
	ReasonBridgeFilter   = "br-netfilter"
	ReasonReversePath    = "rp-filter"
	ReasonMissingFeature = "missing-feature"
	ReasonPoolOnRoute    = "pool-on-route"
	ReasonDiffers        = "differs-from-plan"
	ReasonCluster        = "cluster-store"
	ReasonStranded       = "lost-address"
	ReasonUnfinished     = "unfinished"
	ReasonOrphan         = "orphan"
	ReasonEntries        = "entries-repaired"
	ReasonUnguarded      = "ports-unguarded"
)

// Observation is what was seen of the host.
type Observation struct {
	Forward4, Forward6 bool
	IPv6               bool                // the kernel has it
	Obstacles          []firewall.Obstacle // rules and policies of others that stop forwarded packets
	BridgeFilter       []string            // those of the sysctls net.bridge.bridge-nf-call-* that are on
	Uplinks            []string
	Strict             []string // uplinks with a strict reverse path filter
	Missing            []kernel.Feature
	Routes             []kernel.Route
}

// Subject is a network that packets should pass.
type Subject struct {
	Name       string
	Pools      []ipam.Pool
	IPv4, IPv6 bool
	Routed     bool // packets from it to elsewhere pass the host
}

// Examine returns what is wrong, the worst kinds first within each subject
// matter. Without subjects it says what would be wrong for any. Pure.
func Examine(o Observation, subjects []Subject) []Finding {
	var found []Finding
	found = append(found, forwarding(o, subjects)...)
	found = append(found, obstacles(o, subjects)...)
	found = append(found, reversePath(o)...)
	for _, f := range o.Missing {
		found = append(found, Finding{
			Reason: ReasonMissingFeature, Severity: Warning,
			What:   fmt.Sprintf("this kernel has no %s", f.Name),
			So:     "missing for: " + f.For,
			Remedy: fmt.Sprintf("modprobe %s, or a kernel that has it", f.Name),
		})
	}
	return append(found, collisions(o, subjects)...)
}

func forwarding(o Observation, subjects []Subject) []Finding {
	var found []Finding
	report := func(reason, key, family string, needs func(Subject) bool) {
		var names []string
		for _, s := range subjects {
			if s.Routed && needs(s) {
				names = append(names, s.Name)
			}
		}
		if len(subjects) > 0 && len(names) == 0 {
			return
		}
		finding := Finding{
			Reason: reason, Severity: Broken, What: key + " is 0: the host passes no " + family + " packets on",
			So: "containers of " + strings.Join(names, ", ") + " reach nothing beyond the host over " + family, Remedy: "sysctl -w " + key + "=1",
		}
		if len(names) == 0 {
			finding.Severity, finding.So = Note, "containers would reach nothing beyond the host; the daemon switches it on when it needs it"
		}
		found = append(found, finding)
	}
	if !o.Forward4 {
		report(ReasonForward4, "net.ipv4.ip_forward", "IPv4", func(s Subject) bool { return s.IPv4 })
	}
	if !o.Forward6 && o.IPv6 {
		report(ReasonForward6, "net.ipv6.conf.all.forwarding", "IPv6", func(s Subject) bool { return s.IPv6 })
	}
	return found
}

// obstacles reports chains that drop, and whether they see what bridges carry.
func obstacles(o Observation, subjects []Subject) []Finding {
	var found []Finding
	severity := Warning // for whatever network there may be
	if slices.ContainsFunc(subjects, func(s Subject) bool { return s.Routed }) {
		severity = Broken
	}
	for _, obstacle := range o.Obstacles {
		found = append(found, Finding{
			Reason: ReasonDropPolicy, Severity: severity,
			What:   fmt.Sprintf("%s, somebody else's, stops what containers send and get: %s (see: %s)", obstacle.Chain, obstacle.Rule, obstacle.Show),
			So:     "containers reach nothing beyond their own network: an accept of ours does not end what another chain drops",
			Remedy: obstacle.Remedy,
		})
	}
	for _, key := range o.BridgeFilter {
		finding := Finding{
			Reason: ReasonBridgeFilter, Severity: Note,
			What:   key + " is 1: rules for routed packets see those that a bridge carries, too",
			So:     "a firewall of somebody else's may drop what containers of one network send each other",
			Remedy: "sysctl -w " + key + "=0",
		}
		if len(o.Obstacles) > 0 {
			finding.Severity = Warning
			finding.So = "the chain above drops even what containers of one network send each other"
		}
		found = append(found, finding)
	}
	return found
}

func reversePath(o Observation) []Finding {
	if len(o.Uplinks) < 2 {
		return nil // what comes in by the only way goes out by it
	}
	var found []Finding
	for _, link := range o.Strict {
		found = append(found, Finding{
			Reason: ReasonReversePath, Severity: Warning,
			What:   fmt.Sprintf("net.ipv4.conf.%s.rp_filter is strict, and the host has %d uplinks: %s", link, len(o.Uplinks), strings.Join(o.Uplinks, ", ")),
			So:     "packets for a published port that come in by " + link + " are dropped if the answer would go another way",
			Remedy: fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2", link),
		})
	}
	return found
}

func collisions(o Observation, subjects []Subject) []Finding {
	var found []Finding
	for _, s := range subjects {
		for _, pool := range s.Pools {
			for _, route := range o.Routes {
				if _, overlaps := ipam.Overlapping(pool.Subnet, ipam.Holding{Prefix: route.To}); !overlaps {
					continue
				}
				found = append(found, Finding{
					Reason: ReasonPoolOnRoute, Severity: Broken,
					What:   fmt.Sprintf("subnet %s of network %s overlaps the host's route to %s on %s (see: ip route show %s)", pool.Subnet, s.Name, route.To, route.Link, route.To),
					So:     loser(pool.Subnet, route),
					Remedy: fmt.Sprintf("remove network %s and make it with another --subnet; to keep default networks off, give the daemon another --default-address-pool", s.Name),
				})
			}
		}
	}
	return found
}

// loser says who is cut off: the longer prefix wins.
func loser(subnet netip.Prefix, route kernel.Route) string {
	if route.To.Bits() > subnet.Bits() {
		return fmt.Sprintf("what the host sends to containers in %s goes out by %s instead", route.To, route.Link)
	}
	return fmt.Sprintf("the host and its containers do not reach %s behind %s any more", subnet, route.Link)
}
