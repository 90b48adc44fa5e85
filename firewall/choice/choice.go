// Package choice picks the firewall's backend for a machine, and finds what on
// it works against us.
//
// A packet that the machine forwards is asked about by the FORWARD chain of
// iptables and by each base chain of nftables, and passes if all of them accept
// it. So rules in a table of our own (package nftables) are the better ones, until
// somebody sets the policy of iptables' FORWARD chain to DROP, as Docker and ufw
// do:
//
//	iptables -S FORWARD | head -1
//
// Only a rule in that very chain can let a packet pass then, which is package
// iptables.
package choice

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/kernel"
)

// Choice is a backend, by what users call it, and why it was taken.
type Choice struct {
	Backend firewall.Backend
	Name    string
	Why     string
}

// stranger is the name of a link that no rule names.
const stranger = "linkspan?"

// Make takes the backend that is wanted: auto, nftables or iptables. For auto
// it is iptables if the kernel lacks nftables, or if a FORWARD chain of iptables
// stops what it is not told to let pass; nftables otherwise. Of the two kinds of
// iptables it is the one whose chain does so, else what the command iptables is.
// accept is the mark that lets packets into networks. Nothing is changed. An error is of kind linkspan.ErrUnsupported.
func Make(h *kernel.Host, wanted string, accept firewall.Mark) (Choice, error) {
	lacking := nftables.Available(h)
	legacy, nft := iptables.Stopped(h), stoppedByNFT(h, lacking == nil)
	modern := Choice{Backend: nftables.Backend{Accept: accept}, Name: nftables.Name, Why: "nothing stands in its way"}
	old := func(variant iptables.Variant, why string) Choice {
		rules := iptables.Backend{Variant: variant, Accept: accept}
		if lacking == nil {
			return Choice{Backend: firewall.ResolveBy(rules, nftables.Backend{}), Name: iptables.Name, Why: why}
		}
		return Choice{Backend: rules, Name: iptables.Name, Why: why}
	}
	switch {
	case wanted == nftables.Name:
		modern.Why = "it was asked for"
		return modern, lacking
	case legacy && installed(iptables.Legacy):
		return old(iptables.Legacy, "the FORWARD chain of iptables-legacy stops what it is not told to let pass"), nil
	case nft && installed(iptables.NFT):
		return old(iptables.NFT, "the FORWARD chain of iptables stops what it is not told to let pass"), nil
	case wanted == iptables.Name && !installed(iptables.Default):
		return modern, linkspan.Errorf(linkspan.ErrUnsupported, "firewall backend iptables: the command iptables-restore is not installed: install package iptables, or choose nftables")
	case wanted == iptables.Name:
		return old(iptables.Default, "it was asked for"), nil
	case lacking != nil && installed(iptables.Default):
		return old(iptables.Default, "this kernel lacks nftables"), nil
	}
	return modern, lacking
}

func installed(variant iptables.Variant) bool {
	_, err := exec.LookPath(variant.Command())
	return err == nil
}

// stoppedByNFT tells whether the FORWARD chain of iptables-nft stops a
// stranger's packets.
func stoppedByNFT(h *kernel.Host, available bool) bool {
	if !available {
		return false
	}
	obstacles, err := nftables.Obstacles(h, []string{stranger}, []string{stranger})
	return err == nil && slices.ContainsFunc(obstacles, func(o firewall.Obstacle) bool {
		return o.Chain == "chain FORWARD of table ip filter" || o.Chain == "chain FORWARD of table ip6 filter"
	})
}

// Obstacles returns rules and policies of others that stop what is forwarded
// from or to one of the given links, whatever our own rules say. The links are
// bridges of networks that are not internal: four of those with IPv4, six of
// those with IPv6.
func Obstacles(h *kernel.Host, four, six []string) ([]firewall.Obstacle, error) {
	var all []firewall.Obstacle
	var families []bool
	if len(four) > 0 {
		families = append(families, false)
	}
	if len(six) > 0 {
		families = append(families, true)
	}
	var errs []error
	if nftables.Available(h) == nil {
		found, err := nftables.Obstacles(h, four, six)
		all, errs = append(all, found...), append(errs, err)
	}
	found, err := iptables.Obstacles(h, families...)
	all, errs = append(all, found...), append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return all, fmt.Errorf("looking for rules that stop forwarded packets: %w", err)
	}
	return all, nil
}
