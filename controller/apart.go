package controller

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// A default bridge that keeps its containers apart (--icc=false) lets links
// through (docker run --link): who has one may ask what its target exposes. The
// ports of the bridge stay isolated, so the packets take the way by the host,
// where the firewall lets them pass. Both containers are told that the other one
// has the bridge's MAC, since neither would hear the other's answer to ARP:
//
//	web ──▶ linkspan0 ──▶ host's firewall ──▶ linkspan0 ──▶ db

// apartBridge is a default bridge that keeps its containers apart. The zero
// apartBridge is one that does not.
type apartBridge struct{ link, mac string }

// apart reads it, for a container that others have links to.
func (c *Controller) apart(target linkspan.ID) (bridge apartBridge, err error) {
	var n network.Network
	linked := false
	c.o.Store.View(func(t store.Tables) {
		row, missing := findNetwork(t, "bridge")
		n, linked = row.Value, missing == nil && t.By.ConfigsByLink.Len(target) > 0
	})
	if !linked {
		return bridge, nil
	}
	driver, err := c.driver(n.Driver)
	if err != nil {
		return bridge, err
	}
	filtered, ok := driver.(drivers.Filtered)
	if !ok {
		return bridge, nil
	}
	rules, err := filtered.Rules(n)
	if err != nil || rules.ICC {
		return bridge, err
	}
	bridge = apartBridge{rules.Bridge, n.MAC}
	if n.Adopted != nil { // whose MAC is its owner's
		bridge.mac, err = c.o.Host.MAC("", rules.Bridge)
	}
	return bridge, err
}

// waysInto are the ways of links into a live container.
func waysInto(t store.Tables, cfg store.Config, s sandbox.Sandbox, bridge apartBridge) (ways []store.Way) {
	to, plugged := endOf(t, s)
	if bridge == (apartBridge{}) || !plugged {
		return nil
	}
	for _, linker := range t.By.ConfigsByLink.All(cfg.Owner) {
		live, ok := sandboxOf(t, linker.Value.Owner)
		if !ok || live.Phase != store.Ready {
			continue // when it is, it sees to this itself
		}
		if from, plugged := endOf(t, live.Value); plugged {
			ways = append(ways, store.Way{Bridge: bridge.link, MAC: bridge.mac, From: from, To: to, Exposed: cfg.Exposed})
		}
	}
	slices.SortFunc(ways, func(a, b store.Way) int { return strings.Compare(a.From.NS, b.From.NS) })
	return ways
}

// endOf is where a sandbox is plugged into the default bridge.
func endOf(t store.Tables, s sandbox.Sandbox) (end store.End, plugged bool) {
	for _, l := range linksOf(t, s.ID) {
		if network.Predefined(l.network.Name) {
			end = store.End{NS: s.Netns(), Interface: l.endpoint.Interface}
			if l.endpoint.IPv4.IsValid() {
				end.IPv4 = l.endpoint.IPv4.Addr()
			}
			if l.endpoint.IPv6.IsValid() {
				end.IPv6 = l.endpoint.IPv6.Addr()
			}
			plugged = true
		}
	}
	return end, plugged
}

// waysPlan plans ways in: rules first.
func (c *Controller) waysPlan(ways []store.Way) op.Plan {
	var rules, pins op.Plan
	for _, w := range ways {
		var links []sandbox.Link
		for _, pair := range w.Pairs() {
			links = append(links, linksTo(w.Exposed, pair)...)
			for _, pin := range []op.PinNeighbour{
				{NS: w.From.NS, Link: w.From.Interface, Address: pair[1], MAC: w.MAC},
				{NS: w.To.NS, Link: w.To.Interface, Address: pair[0], MAC: w.MAC},
			} {
				pins = append(pins, op.Step{Why: "Ports of this bridge are isolated: two that are linked reach each other by the host.", Op: pin})
			}
		}
		if linker, can := c.o.Firewall.(firewall.Linker); can {
			rules = append(rules, linker.Links(w.Bridge, links)...)
		}
	}
	return append(rules, pins...)
}

func linksTo(exposed []string, pair [2]netip.Addr) (links []sandbox.Link) {
	for _, text := range exposed {
		if p, err := apinetwork.ParsePort(text); err == nil {
			links = append(links, sandbox.Link{From: pair[0], Protocol: string(p.Proto()), To: netip.AddrPortFrom(pair[1], p.Num()), Count: 1})
		}
	}
	return links
}

// followTargets makes the ways into the targets of a container's links follow. A
// target that stops meanwhile has none.
func (c *Controller) followTargets(ctx context.Context, owner linkspan.ID) error {
	var targets []linkspan.ID
	c.o.Store.View(func(t store.Tables) {
		cfg, _ := t.Configs.Get(owner)
		for _, l := range cfg.Value.Links {
			if live, ok := sandboxOf(t, l.Target); ok && live.Phase == store.Ready && !slices.Contains(targets, l.Target) {
				targets = append(targets, l.Target)
			}
		}
	})
	for _, target := range targets {
		bridge, err := c.apart(target)
		if err == nil && bridge != (apartBridge{}) {
			err = c.followPorts(ctx, target)
		}
		if err != nil && c.live(target) {
			return err
		}
	}
	return nil
}
