package op

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/linkspan/linkspan/kernel"
)

// Looker is an Op that can show what it changes.
type Looker interface {
	Op

	// Look describes the thing as it is now, in a line or some.
	Look(h *kernel.Host) (string, error)
}

// Look describes what an op changes, as it is now: the thing itself if the op can
// show it, else whether Check is content.
func Look(ctx context.Context, h *kernel.Host, o Op) string {
	if looker, ok := o.(Looker); ok {
		text, err := looker.Look(h)
		if err == nil {
			return text
		}
		if kernel.IsGone(err) {
			return "not there: " + err.Error()
		}
		return err.Error()
	}
	if err := o.Check(ctx, h); err != nil {
		return "not yet: " + err.Error()
	}
	return "as the command leaves it"
}

// lookAtLink describes a link as ip -d link and ip addr would, in one line.
func lookAtLink(h *kernel.Host, ns, name string) (string, error) {
	if _, err := find(h, ns, name); err != nil {
		return "", err
	}
	links, err := h.Survey(ns)
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if l.Name == name {
			return describe(l), nil
		}
	}
	return "", fmt.Errorf("link %s is about to be deleted", name)
}

func describe(l kernel.Link) string {
	words := []string{fmt.Sprintf("%s: %s, address %s, mtu %d, %s", l.Name, l.Kind, l.MAC, l.MTU, map[bool]string{true: "up", false: "down"}[l.Up])}
	if l.Master != "" {
		words = append(words, "port of "+l.Master)
	}
	if l.Marked {
		words = append(words, "ours")
	}
	for _, address := range l.Addresses {
		words = append(words, address.String())
	}
	return strings.Join(words, ", ")
}

// lookAtRoutes lists the routes of a namespace by a link.
func lookAtRoutes(h *kernel.Host, ns, name string) (string, error) {
	links, link, err := lookUp(h, ns, name)
	if err != nil {
		return "", err
	}
	routes, err := kernel.Dump(func() ([]netlink.Route, error) { return links.RouteList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return "", fmt.Errorf("listing the routes by %s: %w", name, err)
	}
	var lines []string
	for _, route := range routes {
		to := "default"
		if route.Dst != nil {
			to = route.Dst.String()
		}
		if route.Gw != nil {
			to += " via " + route.Gw.String()
		}
		lines = append(lines, to)
	}
	return fmt.Sprintf("routes by %s: %s", name, strings.Join(lines, "; ")), nil
}

// Look shows the bridge.
func (o AddBridge) Look(h *kernel.Host) (string, error) { return lookAtLink(h, "", o.Name) }

// Look shows the bridge.
func (o AddOwnBridge) Look(h *kernel.Host) (string, error) { return lookAtLink(h, "", o.Name) }

// Look shows the bridge.
func (o AdoptBridge) Look(h *kernel.Host) (string, error) { return lookAtLink(h, "", o.Name) }

// Look shows both ends.
func (o AddVeth) Look(h *kernel.Host) (string, error) {
	near, err := lookAtLink(h, "", o.Name)
	if err != nil {
		return "", err
	}
	far, err := lookAtLink(h, o.PeerNS, o.Peer)
	return fmt.Sprintf("%s\n%s, in %s", near, far, o.PeerNS), err
}

// Look shows the device.
func (o AddMacvlan) Look(h *kernel.Host) (string, error) { return lookAtLink(h, o.NS, o.Name) }

// Look shows the device.
func (o AddVXLAN) Look(h *kernel.Host) (string, error) { return lookAtLink(h, "", o.Name) }

// Look shows the link.
func (o PlugIn) Look(h *kernel.Host) (string, error) { return lookAtLink(h, "", o.Link) }

// Look shows the link.
func (o SetUp) Look(h *kernel.Host) (string, error) { return lookAtLink(h, o.NS, o.Link) }

// Look shows the link.
func (o SetMTU) Look(h *kernel.Host) (string, error) { return lookAtLink(h, o.NS, o.Link) }

// Look shows the link.
func (o SetMAC) Look(h *kernel.Host) (string, error) { return lookAtLink(h, o.NS, o.Link) }

// Look shows the link, with its addresses.
func (o AddAddress) Look(h *kernel.Host) (string, error) { return lookAtLink(h, o.NS, o.Link) }

// Look shows the link, with its addresses.
func (o RemoveAddress) Look(h *kernel.Host) (string, error) { return o.Added.Look(h) }

// Look shows the routes by the link.
func (o AddRoute) Look(h *kernel.Host) (string, error) { return lookAtRoutes(h, o.NS, o.Link) }

// Look shows the value.
func (o SetSysctl) Look(h *kernel.Host) (string, error) {
	value, err := h.ReadSysctl(o.NS, o.Key)
	return fmt.Sprintf("%s = %s", o.Key, strings.TrimSpace(value)), err
}

// Look shows what is in the namespace.
func (o AddNetns) Look(h *kernel.Host) (string, error) {
	if _, err := os.Stat(kernel.Pin(o.Name)); errors.Is(err, fs.ErrNotExist) {
		return "not there: no namespace is pinned at " + kernel.Pin(o.Name), nil
	}
	links, err := h.Survey(o.Name)
	if err != nil {
		return "", err
	}
	lines := []string{"a network namespace"}
	for _, l := range links {
		lines = append(lines, describe(l))
	}
	return strings.Join(lines, "\n"), nil
}

// Look shows the text.
func (o WriteFile) Look(*kernel.Host) (string, error) {
	text, err := os.ReadFile(o.Path)
	if err != nil {
		return "", fmt.Errorf("reading the file: %w", err)
	}
	return strings.TrimRight(string(text), "\n"), nil
}
