package op

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// The ops of this file change what other ops made, or take it back, while the
// link that it belongs to stays. Difference puts them into plans.

// defaultMTU is what the kernel gives a bridge or veth that names none.
const defaultMTU = 1500

// SetMTU changes the largest frame that a link passes. Frames on their way are
// not affected; TCP learns of it by the route's MTU.
type SetMTU struct {
	NS   string `json:",omitempty"`
	Link string
	MTU  int // bytes
	Was  int // bytes; Undo restores it
}

// Do sets the MTU.
func (o SetMTU) Do(_ context.Context, h *kernel.Host) error { return o.set(h, o.MTU) }

// Undo sets the earlier one. A link that is gone needs none.
func (o SetMTU) Undo(_ context.Context, h *kernel.Host) error {
	if err := o.set(h, o.Was); err != nil && !kernel.IsGone(err) {
		return err
	}
	return nil
}

func (o SetMTU) set(h *kernel.Host, mtu int) error {
	links, link, err := lookUp(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	if o.NS == "" && link.Attrs().Group != kernel.Mark {
		return linkspan.Errorf(linkspan.ErrConflict, "link %s is not ours and keeps its MTU (see: ip -d link show %s)", o.Link, o.Link)
	}
	if err := links.LinkSetMTU(link, mtu); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return linkspan.Errorf(linkspan.ErrInvalid, "setting the MTU of %s to %d bytes: the kernel does not take it (see: %s -d link show %s): %w", o.Link, mtu, ipIn(o.NS), o.Link, err)
		}
		return fmt.Errorf("setting the MTU of %s to %d bytes: %w", o.Link, mtu, err)
	}
	return nil
}

// Check compares the MTU.
func (o SetMTU) Check(_ context.Context, h *kernel.Host) error {
	attrs, err := find(h, o.NS, o.Link)
	if err != nil {
		return err
	}
	return checkMTU(o.NS, attrs, o.MTU)
}

func (o SetMTU) String() string {
	return fmt.Sprintf("%s link set %s mtu %d", ipIn(o.NS), quote(o.Link), o.MTU)
}

// RemoveAddress takes back what an AddAddress did.
type RemoveAddress struct{ Added AddAddress }

// Do removes the address. One that is gone already is success.
func (o RemoveAddress) Do(ctx context.Context, h *kernel.Host) error { return o.Added.Undo(ctx, h) }

// Undo adds the address, if it is missing.
func (o RemoveAddress) Undo(ctx context.Context, h *kernel.Host) error { return again(ctx, h, o.Added) }

// Check finds that the address is missing.
func (o RemoveAddress) Check(ctx context.Context, h *kernel.Host) error {
	if o.Added.Check(ctx, h) == nil {
		return fmt.Errorf("address %s is still on %s (see: %s addr show %s)", o.Added.Address, o.Added.Link, ipIn(o.Added.NS), o.Added.Link)
	}
	return nil
}

func (o RemoveAddress) String() string {
	return fmt.Sprintf("%s addr del %s dev %s", ipIn(o.Added.NS), o.Added.Address, quote(o.Added.Link))
}

// ClearIsolated lets a bridge port talk to isolated ports again.
type ClearIsolated struct{ Link string }

// Do clears the setting.
func (o ClearIsolated) Do(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Link)
	if err != nil {
		return err
	}
	if err := links.LinkSetIsolated(link, false); err != nil {
		return fmt.Errorf("ending the isolation of bridge port %s: %w", o.Link, err)
	}
	return nil
}

// Undo isolates the port.
func (o ClearIsolated) Undo(ctx context.Context, h *kernel.Host) error {
	if err := SetIsolated(o).Do(ctx, h); err != nil && !kernel.IsGone(err) {
		return err
	}
	return nil
}

// Check finds the port not isolated.
func (o ClearIsolated) Check(ctx context.Context, h *kernel.Host) error {
	if SetIsolated(o).Check(ctx, h) == nil {
		return fmt.Errorf("bridge port %s is isolated (see: bridge -d link show dev %s)", o.Link, o.Link)
	}
	return nil
}

func (o ClearIsolated) String() string {
	return fmt.Sprintf("bridge link set dev %s isolated off", quote(o.Link))
}

// ResetSysctl gives a parameter of a link the value that new links get: that
// of the link "default" (Documentation/networking/ip-sysctl.rst).
type ResetSysctl struct {
	NS  string `json:",omitempty"`
	Key string // with slashes: net/ipv6/conf/LINK/accept_ra
	Was string // Undo restores it
}

// Do copies the value.
func (o ResetSysctl) Do(_ context.Context, h *kernel.Host) error {
	value, err := h.ReadSysctl(o.NS, o.source())
	if err != nil {
		return err
	}
	return h.WriteSysctl(o.NS, o.Key, value)
}

// Undo restores the earlier value. A link that is gone needs none.
func (o ResetSysctl) Undo(_ context.Context, h *kernel.Host) error {
	if err := h.WriteSysctl(o.NS, o.Key, o.Was); err != nil && !kernel.IsGone(err) {
		return err
	}
	return nil
}

// Check compares the value.
func (o ResetSysctl) Check(ctx context.Context, h *kernel.Host) error {
	value, err := h.ReadSysctl(o.NS, o.source())
	if err != nil {
		return err
	}
	return SetSysctl{NS: o.NS, Key: o.Key, Value: value}.Check(ctx, h)
}

func (o ResetSysctl) source() string {
	parts := strings.Split(o.Key, "/")
	if len(parts) > 3 {
		parts[3] = "default" // net/FAMILY/conf/LINK/NAME
	}
	return strings.Join(parts, "/")
}

func (o ResetSysctl) String() string {
	in := nsenter(o.NS)
	return fmt.Sprintf("%ssysctl -qw %s\"$(%ssysctl -n %s)\"", in, quote(o.Key+"="), in, quote(o.source()))
}

// again does an op whose effect may be there still, wholly or not at all. A
// link that is gone needs none.
func again(ctx context.Context, h *kernel.Host, o Op) error {
	if o.Check(ctx, h) == nil {
		return nil
	}
	if err := o.Do(ctx, h); err != nil && !kernel.IsGone(err) && !errors.Is(err, linkspan.ErrConflict) {
		return err
	}
	return nil
}

// Thing names the bridge.
func (o AddBridge) Thing() string { return "bridge " + o.Name }

// Into changes the MTU.
func (o AddBridge) Into(to Op) ([]Op, bool) {
	fresh, _ := to.(AddBridge)
	was, now := o.MTU, fresh.MTU
	o.MTU, fresh.MTU = 0, 0
	if o != fresh {
		return nil, false
	}
	return []Op{SetMTU{Link: o.Name, MTU: orDefault(now), Was: orDefault(was)}}, true
}

// Thing names the pair by its near end.
func (o AddVeth) Thing() string { return "link " + o.Name }

// Into changes the MTU of both ends.
func (o AddVeth) Into(to Op) ([]Op, bool) {
	fresh, _ := to.(AddVeth)
	was, now := orDefault(o.MTU), orDefault(fresh.MTU)
	o.MTU, fresh.MTU = 0, 0
	if o != fresh {
		return nil, false
	}
	return []Op{SetMTU{Link: o.Name, MTU: now, Was: was}, SetMTU{NS: o.PeerNS, Link: o.Peer, MTU: now, Was: was}}, true
}

func orDefault(mtu int) int {
	if mtu == 0 {
		return defaultMTU
	}
	return mtu
}

// Thing names the parameter.
func (o SetSysctl) Thing() string { return "sysctl " + o.Key + " of " + o.NS }

// Into sets the other value.
func (o SetSysctl) Into(to Op) ([]Op, bool) {
	fresh, ok := to.(SetSysctl)
	return []Op{SetSysctl{NS: o.NS, Key: o.Key, Value: fresh.Value, Was: o.Value, Optional: fresh.Optional}}, ok
}

// Reverse gives the parameter the value of new links.
func (o SetSysctl) Reverse() Op {
	if o.Was != "" {
		return SetSysctl{NS: o.NS, Key: o.Key, Value: o.Was, Was: o.Value}
	}
	return ResetSysctl{NS: o.NS, Key: o.Key, Was: o.Value}
}

// Reverse removes the address.
func (o AddAddress) Reverse() Op { return RemoveAddress{o} }

// Reverse ends the isolation.
func (o SetIsolated) Reverse() Op { return ClearIsolated(o) }
