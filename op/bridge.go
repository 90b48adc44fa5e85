package op

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// The ops of this file are a person's: what brctl(8) does to a switch. They
// carry no mark, because what they make belongs to whoever typed the command.

// AddOwnBridge makes a bridge without a mark in the machine's own namespace.
// Its MAC is random until it has ports, then the lowest of theirs.
type AddOwnBridge struct{ Name string }

// Do makes the bridge, down.
func (o AddOwnBridge) Do(_ context.Context, h *kernel.Host) error {
	links, err := h.Links("")
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = o.Name
	return adding("bridge", o.Name, "", links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
}

// Undo removes the bridge, unless it is up: then frames may be on their way.
func (o AddOwnBridge) Undo(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Name)
	if kernel.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case link.Type() != "bridge":
		return linkspan.Errorf(linkspan.ErrConflict, "link %s is no bridge but %s and stays (see: ip -d link show %s)", o.Name, link.Type(), o.Name)
	case link.Attrs().Group == kernel.Mark:
		return linkspan.Errorf(linkspan.ErrConflict, "bridge %s belongs to a network of the daemon and stays (see: linkspan network ls)", o.Name)
	case link.Attrs().Flags&net.FlagUp != 0:
		return linkspan.Errorf(linkspan.ErrConflict, "bridge %s is still up (see: ip link show %s): %w", o.Name, o.Name, unix.EBUSY)
	}
	if err = links.LinkDel(link); err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("removing bridge %s: %w", o.Name, err)
	}
	return nil
}

// Check finds a bridge of that name.
func (o AddOwnBridge) Check(_ context.Context, h *kernel.Host) error {
	_, link, err := lookUp(h, "", o.Name)
	if err == nil && link.Type() != "bridge" {
		err = fmt.Errorf("link %s is no bridge but %s (see: ip -d link show %s)", o.Name, link.Type(), o.Name)
	}
	return err
}

func (o AddOwnBridge) String() string {
	return fmt.Sprintf("ip link add name %s type bridge", quote(o.Name))
}

// PlugIn makes a link of the machine's own namespace a port of a bridge there.
type PlugIn struct{ Link, Bridge string }

// Do plugs the link in. A link that is a port already is refused.
func (o PlugIn) Do(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Link)
	if err != nil {
		return err
	}
	bridge, err := find(h, "", o.Bridge)
	if err != nil {
		return err
	}
	if link.Attrs().MasterIndex != 0 {
		return linkspan.Errorf(linkspan.ErrConflict, "link %s is a port already (see: ip link show %s): %w", o.Link, o.Link, unix.EBUSY)
	}
	if err = links.LinkSetMasterByIndex(link, bridge.Index); err != nil {
		return fmt.Errorf("plugging %s into bridge %s: %w", o.Link, o.Bridge, err)
	}
	return nil
}

// Undo pulls the link out, if it is in that bridge.
func (o PlugIn) Undo(_ context.Context, h *kernel.Host) error {
	err := o.Check(context.Background(), h)
	if kernel.IsGone(err) || errors.Is(err, errElsewhere) {
		return nil
	}
	links, link, err := lookUp(h, "", o.Link)
	if err == nil {
		err = links.LinkSetNoMaster(link)
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("pulling %s out of bridge %s: %w", o.Link, o.Bridge, err)
	}
	return nil
}

var errElsewhere = errors.New("no port of that bridge")

// Check finds the link in its bridge.
func (o PlugIn) Check(_ context.Context, h *kernel.Host) error {
	link, err := find(h, "", o.Link)
	if err != nil {
		return err
	}
	bridge, err := find(h, "", o.Bridge)
	if err != nil {
		return err
	}
	if link.MasterIndex != bridge.Index {
		return fmt.Errorf("link %s is no port of bridge %s (see: ip link show %s): %w", o.Link, o.Bridge, o.Link, errElsewhere)
	}
	return nil
}

func (o PlugIn) String() string {
	return fmt.Sprintf("ip link set %s master %s", quote(o.Link), quote(o.Bridge))
}

// SetBridge sets a parameter of a bridge; Before is its value until then, which
// Undo sets again.
type SetBridge struct {
	Bridge  string
	Setting kernel.BridgeSetting
	Value   uint32
	Before  uint32
}

// Do sets the parameter.
func (o SetBridge) Do(_ context.Context, h *kernel.Host) error { return o.set(h, o.Value) }

// Undo sets it to what it was.
func (o SetBridge) Undo(_ context.Context, h *kernel.Host) error {
	if err := o.set(h, o.Before); err != nil && !kernel.IsGone(err) {
		return err
	}
	return nil
}

func (o SetBridge) set(h *kernel.Host, value uint32) error {
	bridge, err := find(h, "", o.Bridge)
	if err == nil {
		err = h.SetBridge("", bridge.Index, o.Setting, value)
	}
	if err != nil {
		return fmt.Errorf("setting %s of bridge %s to %d: %w", o.word(), o.Bridge, value, err)
	}
	return nil
}

// Check compares the parameter.
func (o SetBridge) Check(_ context.Context, h *kernel.Host) error {
	bridges, err := h.Bridges("")
	if err != nil {
		return err
	}
	for _, bridge := range bridges {
		if bridge.Name != o.Bridge {
			continue
		}
		if got := bridge.Setting(o.Setting); got != o.Value {
			return fmt.Errorf("%s of bridge %s is %d, not %d (see: ip -d link show %s)", o.word(), o.Bridge, got, o.Value, o.Bridge)
		}
		return nil
	}
	return linkspan.Errorf(linkspan.ErrNotFound, "bridge %s does not exist (see: brctl show)", o.Bridge)
}

// word is the parameter as ip-link(8) calls it.
func (o SetBridge) word() string {
	switch o.Setting {
	case kernel.BridgeForwardDelay:
		return "forward_delay"
	case kernel.BridgeHelloTime:
		return "hello_time"
	case kernel.BridgeMaxAge:
		return "max_age"
	case kernel.BridgeAgeingTime:
		return "ageing_time"
	case kernel.BridgeSTP:
		return "stp_state"
	case kernel.BridgePriority:
		return "priority"
	case kernel.BridgeSnooping:
		return "mcast_snooping"
	}
	return fmt.Sprintf("setting_%d", o.Setting)
}

func (o SetBridge) String() string {
	return fmt.Sprintf("ip link set dev %s type bridge %s %d", quote(o.Bridge), o.word(), o.Value)
}

// SetPort sets a parameter of a bridge's port; Before is its value until then,
// which Undo sets again.
type SetPort struct {
	Port    string
	Bridge  string `json:",omitempty"` // that it is a port of, for brctl's words
	Setting kernel.PortSetting
	Value   uint32
	Before  uint32
}

// Do sets the parameter.
func (o SetPort) Do(_ context.Context, h *kernel.Host) error { return o.set(h, o.Value) }

// Undo sets it to what it was.
func (o SetPort) Undo(_ context.Context, h *kernel.Host) error {
	if err := o.set(h, o.Before); err != nil && !kernel.IsGone(err) {
		return err
	}
	return nil
}

func (o SetPort) set(h *kernel.Host, value uint32) error {
	port, err := find(h, "", o.Port)
	if err == nil {
		err = h.SetPort("", port.Index, o.Setting, value)
	}
	if err != nil {
		return fmt.Errorf("setting %s of port %s to %d: %w", o.word(), o.Port, value, err)
	}
	return nil
}

// Check compares the parameter.
func (o SetPort) Check(_ context.Context, h *kernel.Host) error {
	bridges, err := h.Bridges("")
	if err != nil {
		return err
	}
	for _, bridge := range bridges {
		for _, port := range bridge.Ports {
			if port.Name != o.Port {
				continue
			}
			if got := port.Setting(o.Setting); got != o.Value {
				return fmt.Errorf("%s of port %s is %d, not %d (see: bridge -d link show dev %s)", o.word(), o.Port, got, o.Value, o.Port)
			}
			return nil
		}
	}
	return linkspan.Errorf(linkspan.ErrNotFound, "link %s is no port of a bridge (see: bridge link)", o.Port)
}

// word is the parameter as bridge(8) calls it.
func (o SetPort) word() string {
	switch o.Setting {
	case kernel.PortPriority:
		return "priority"
	case kernel.PortCost:
		return "cost"
	case kernel.PortHairpin:
		return "hairpin"
	}
	return fmt.Sprintf("setting_%d", o.Setting)
}

func (o SetPort) String() string {
	value := fmt.Sprint(o.Value)
	if o.Setting == kernel.PortHairpin {
		value = onOff(o.Value)
	}
	return fmt.Sprintf("bridge link set dev %s %s %s", quote(o.Port), o.word(), value)
}
