package op

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan/kernel"
)

// Published is a row of ports of the host that lead to ports of a container,
// as connection tracking sees them.
type Published struct {
	Protocol string
	Host     netip.Addr // unspecified: every address of the host
	First    uint16     // of the host's ports
	Count    uint16
	To       netip.AddrPort // first port of the container
}

func (p Published) has(f kernel.Flow, own map[netip.Addr]bool) bool {
	sameHost := f.To.Addr() == p.Host || p.Host.IsUnspecified() && (own[f.To.Addr()] || f.To.Addr().IsLoopback())
	at := int(f.To.Port()) - int(p.First)
	return f.Protocol == p.Protocol && sameHost && at >= 0 && at < int(p.Count)
}

// leads tells whether a flow leads to the container, translated or relayed.
func (p Published) leads(f kernel.Flow) bool {
	at := int(f.Server.Port()) - int(p.To.Port())
	return f.Protocol == p.Protocol && f.Server.Addr() == p.To.Addr() && at >= 0 && at < int(p.Count)
}

func (p Published) arguments() string {
	dport := fmt.Sprint(p.First)
	if p.Count > 1 {
		dport = fmt.Sprintf("%d:%d", p.First, int(p.First)+int(p.Count)-1)
	}
	text := "-p " + p.Protocol + " --orig-port-dst " + dport
	if !p.Host.IsUnspecified() {
		text += " --orig-dst " + p.Host.String()
	}
	if p.Host.Is6() {
		text = "-f ipv6 " + text
	}
	return text
}

// ClearFlows makes the kernel look again at conversations with ports that have
// just been published: one that began before would pass the rules by for as
// long as its client keeps talking (conntrack(8)). Nothing is taken back.
type ClearFlows struct{ Ports []Published }

// Do deletes flows to the ports that do not lead to the container.
func (o ClearFlows) Do(_ context.Context, h *kernel.Host) error {
	own, err := h.Addresses()
	if err != nil {
		return err
	}
	return deleteFlows(h, o.Ports, func(p Published, f kernel.Flow) bool {
		return p.has(f, own) && f.Server.Addr() != p.To.Addr()
	})
}

// Undo does nothing: what was forgotten comes back by itself.
func (o ClearFlows) Undo(context.Context, *kernel.Host) error { return nil }

// Check finds nothing wrong: flows come and go.
func (o ClearFlows) Check(context.Context, *kernel.Host) error { return nil }

func (o ClearFlows) String() string { return commands(o.Ports, Published.arguments) }

// DropFlows makes the kernel forget conversations that lead to a container by
// its published ports, when those are published no more. It is planned before
// the rules, so as to be undone when they are gone. Doing it does nothing.
type DropFlows struct{ Ports []Published }

// Do does nothing.
func (o DropFlows) Do(context.Context, *kernel.Host) error { return nil }

// Undo deletes the flows that lead to the container's ports.
func (o DropFlows) Undo(_ context.Context, h *kernel.Host) error {
	return deleteFlows(h, o.Ports, func(p Published, f kernel.Flow) bool { return p.leads(f) })
}

// Check finds nothing wrong: flows come and go.
func (o DropFlows) Check(context.Context, *kernel.Host) error { return nil }

func (o DropFlows) String() string {
	return "true # to be done when the ports are taken back: " + strings.ReplaceAll(commands(o.Ports, func(p Published) string {
		return p.arguments() + " --reply-src " + p.To.Addr().String()
	}), "\n", "; ")
}

func commands(ports []Published, arguments func(Published) string) string {
	lines := make([]string, len(ports))
	for i, p := range ports {
		lines[i] = "conntrack -D " + arguments(p) + " 2>/dev/null || true"
	}
	return strings.Join(lines, "\n")
}

func deleteFlows(h *kernel.Host, ports []Published, match func(Published, kernel.Flow) bool) error {
	return h.DeleteFlows(func(f kernel.Flow) bool {
		return slices.ContainsFunc(ports, func(p Published) bool { return match(p, f) })
	})
}
