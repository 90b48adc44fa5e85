package op

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/linkspan/linkspan/kernel"
)

// AddNetns makes a network namespace and pins it where ip-netns(8) finds it.
type AddNetns struct{ Name string }

// Do makes and pins the namespace.
func (o AddNetns) Do(_ context.Context, h *kernel.Host) error { return h.PinNetns(o.Name) }

// Undo lets the namespace go; links inside go with it.
func (o AddNetns) Undo(_ context.Context, h *kernel.Host) error { return h.UnpinNetns(o.Name) }

// Check opens the namespace.
func (o AddNetns) Check(_ context.Context, h *kernel.Host) error {
	_, err := h.FD(o.Name)
	return err
}

func (o AddNetns) String() string { return "ip netns add " + quote(o.Name) }

// SetSysctl sets a kernel parameter under /proc/sys. Was is what it was before:
// Undo restores it. Without one there is nothing to restore, because the
// parameter belongs to a link or a namespace that goes away itself.
type SetSysctl struct {
	NS    string `json:",omitempty"`
	Key   string // with slashes: net/ipv4/ip_forward
	Value string
	Was   string `json:",omitempty"`

	// Optional: where there is no such parameter, what it would switch off is not
	// there either. The kernel has no net/ipv6/conf of a link whose MTU is below
	// 1280 bytes, and none at all when it was started with ipv6.disable=1.
	Optional bool `json:",omitempty"`
}

// Do sets the parameter.
func (o SetSysctl) Do(_ context.Context, h *kernel.Host) error {
	err := h.WriteSysctl(o.NS, o.Key, o.Value)
	if o.Optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Undo restores the earlier value, if there is one and nobody has changed the
// parameter since.
func (o SetSysctl) Undo(_ context.Context, h *kernel.Host) error {
	if o.Was == "" || sameNumbers(o.Was, o.Value) {
		return nil
	}
	now, err := h.ReadSysctl(o.NS, o.Key)
	if err == nil && sameNumbers(now, o.Value) {
		err = h.WriteSysctl(o.NS, o.Key, o.Was)
	}
	if kernel.IsGone(err) {
		return nil
	}
	return err
}

// Check reads the parameter.
func (o SetSysctl) Check(_ context.Context, h *kernel.Host) error {
	now, err := h.ReadSysctl(o.NS, o.Key)
	if o.Optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !sameNumbers(now, o.Value) {
		return fmt.Errorf("sysctl %s is %q, not %q (see: %ssysctl %s)", o.Key, now, o.Value, nsenter(o.NS), o.Key)
	}
	return nil
}

// sameNumbers compares values as the kernel reads them: it takes blanks between
// numbers and returns tabs.
func sameNumbers(a, b string) bool { return slices.Equal(strings.Fields(a), strings.Fields(b)) }

func (o SetSysctl) String() string {
	flags := "-qw"
	if o.Optional {
		flags = "-eqw"
	}
	return fmt.Sprintf("%ssysctl %s %s", nsenter(o.NS), flags, quote(o.Key+"="+o.Value))
}

// nsenter returns the words that run a command in a namespace and change
// nothing else about it, unlike ip netns exec, which remounts /sys.
func nsenter(ns string) string {
	if ns == "" {
		return ""
	}
	return "nsenter --net=" + quote(kernel.Pin(ns)) + " "
}
