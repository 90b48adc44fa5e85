package iptables

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
)

// Obstacles returns what in the FORWARD chains of iptables-legacy, that of IPv4
// (false), IPv6 (true) or both, stops forwarded packets, unless our own rules come first there. What iptables-nft
// has is a part of nftables: see nftables.Obstacles.
func Obstacles(h *kernel.Host, families ...bool) ([]firewall.Obstacle, error) {
	var found []firewall.Obstacle
	for _, ipv6 := range families {
		rules, err := legacyForward(h, ipv6)
		if err != nil {
			return found, err
		}
		if what := stops(rules); what != "" && !slices.Contains(rules, "-A FORWARD -j LINKSPAN-FORWARD") {
			command := Legacy.command(ipv6, "")
			found = append(found, firewall.Obstacle{
				Chain: "chain FORWARD of " + command, Rule: what, Show: command + " -S FORWARD",
				Remedy: "start the daemon with --firewall-backend iptables, whose rules come first in that chain",
			})
		}
	}
	return found, nil
}

// Stopped tells whether a FORWARD chain of iptables-legacy stops packets that
// no rule accepts. If it cannot be read it does not.
func Stopped(h *kernel.Host) bool {
	return slices.ContainsFunc([]bool{false, true}, func(ipv6 bool) bool {
		rules, err := legacyForward(h, ipv6)
		return err == nil && stops(rules) != ""
	})
}

// legacyForward lists a FORWARD chain of iptables-legacy; if its table is not in
// use there are no rules.
func legacyForward(h *kernel.Host, ipv6 bool) ([]string, error) {
	if !legacyInUse(h, ipv6) {
		return nil, nil
	}
	command := Legacy.command(ipv6, "")
	var rules []string
	err := h.Inside("", func() error {
		path, err := exec.LookPath(command)
		if err != nil {
			return err
		}
		family := iptables.ProtocolIPv4
		if ipv6 {
			family = iptables.ProtocolIPv6
		}
		tool, err := iptables.New(iptables.IPFamily(family), iptables.Path(path))
		if err == nil {
			rules, err = tool.List("filter", "FORWARD")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the rules of chain FORWARD (see: %s -S FORWARD): %w", command, err)
	}
	return rules, nil
}

// stops returns what in a FORWARD chain stops packets that no rule accepts.
func stops(rules []string) string {
	for _, rule := range rules {
		if rule == "-P FORWARD DROP" {
			return "its policy is DROP"
		}
		for _, target := range []string{"DROP", "REJECT"} {
			if strings.HasPrefix(rule, "-A FORWARD -j "+target) {
				return "rule " + rule
			}
		}
	}
	return ""
}

// legacyInUse tells whether iptables-legacy has a filter table in the machine's
// own namespace. Merely to ask iptables-legacy would make one.
func legacyInUse(h *kernel.Host, ipv6 bool) bool {
	file := "/proc/thread-self/net/ip_tables_names"
	if ipv6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	var names []byte
	err := h.Inside("", func() (err error) { names, err = os.ReadFile(file); return err })
	return err == nil && slices.Contains(strings.Fields(string(names)), "filter")
}
