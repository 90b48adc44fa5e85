package op

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// LimitRate lets frames leave a link no faster than a given rate: a token
// bucket (tc-tbf(8)) in the place where the link's frames queue. It goes with
// its link.
type LimitRate struct {
	NS    string `json:",omitempty"`
	Link  string
	Rate  uint64 // bits per second
	Burst uint32 // bytes that may leave at once; at least a whole frame
	Queue uint32 // bytes that may wait, the burst included; what comes on top is dropped
}

// Do puts the bucket at the link's root.
func (o LimitRate) Do(_ context.Context, h *kernel.Host) error {
	return putQueue(h, o.NS, o.Link, "tbf", func(attrs netlink.QdiscAttrs) netlink.Qdisc {
		return &netlink.Tbf{QdiscAttrs: attrs, Rate: o.Rate / 8, Buffer: netlink.Xmittime(o.Rate/8, o.Burst), Limit: o.Queue}
	})
}

// Undo takes the bucket away.
func (o LimitRate) Undo(_ context.Context, h *kernel.Host) error { return takeQueue(h, o.NS, o.Link) }

// Check finds the bucket with its rate.
func (o LimitRate) Check(_ context.Context, h *kernel.Host) error {
	return checkQueue(h, o.NS, o.Link, kernel.Queue{Kind: "tbf", Rate: o.Rate / 8 * 8})
}

func (o LimitRate) String() string {
	return fmt.Sprintf("%s qdisc add dev %s root handle %x: tbf rate %dbit burst %d limit %d", tcIn(o.NS), quote(o.Link), kernel.Mark, o.Rate, o.Burst, o.Queue)
}

// Netem makes a link's frames leave late, not at all, or slowly, as on a long
// and bad line (tc-netem(8)). Many kernels are built without it: then Do fails
// with ErrUnsupported. It goes with its link.
type Netem struct {
	NS    string `json:",omitempty"`
	Link  string
	Delay time.Duration `json:",omitempty"` // whole microseconds
	Loss  uint32        `json:",omitempty"` // frames of a million
	Rate  uint64        `json:",omitempty"` // bits per second; 0: as fast as they come
}

// Do puts the line at the link's root.
func (o Netem) Do(_ context.Context, h *kernel.Host) error {
	return putQueue(h, o.NS, o.Link, "netem", func(attrs netlink.QdiscAttrs) netlink.Qdisc {
		return netlink.NewNetem(attrs, netlink.NetemQdiscAttrs{
			Latency: uint32(o.Delay / time.Microsecond), Loss: float32(o.Loss) / 1e4, Rate64: o.Rate / 8,
		})
	})
}

// Undo takes the line away.
func (o Netem) Undo(_ context.Context, h *kernel.Host) error { return takeQueue(h, o.NS, o.Link) }

// Check finds the line with its delay, loss and rate.
func (o Netem) Check(_ context.Context, h *kernel.Host) error {
	return checkQueue(h, o.NS, o.Link, kernel.Queue{Kind: "netem", Delay: o.Delay, Loss: o.Loss, Rate: o.Rate / 8 * 8})
}

func (o Netem) String() string {
	var words strings.Builder
	fmt.Fprintf(&words, "%s qdisc add dev %s root handle %x: netem", tcIn(o.NS), quote(o.Link), kernel.Mark)
	if o.Delay > 0 {
		fmt.Fprintf(&words, " delay %dus", o.Delay/time.Microsecond)
	}
	if o.Loss > 0 {
		fmt.Fprintf(&words, " loss %g%%", float64(o.Loss)/1e4)
	}
	if o.Rate > 0 {
		fmt.Fprintf(&words, " rate %dbit", o.Rate)
	}
	return words.String()
}

// tcIn returns the tc command for a namespace.
func tcIn(ns string) string {
	if ns == "" {
		return "tc"
	}
	return "tc -n " + quote(ns)
}

// queueHandle is our mark on a queueing discipline: its number, 6c73: in tc's words.
const queueHandle = kernel.Mark << 16

func putQueue(h *kernel.Host, ns, name, kind string, queue func(netlink.QdiscAttrs) netlink.Qdisc) error {
	links, link, err := lookUp(h, ns, name)
	if err != nil {
		return err
	}
	err = links.QdiscAdd(queue(netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: queueHandle, Parent: netlink.HANDLE_ROOT}))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return linkspan.Errorf(linkspan.ErrConflict, "queueing the frames of link %s: it has a queueing discipline already (see: %s qdisc show dev %s): %w", name, tcIn(ns), name, err)
	case errors.Is(err, unix.ENOENT):
		return linkspan.Errorf(linkspan.ErrUnsupported, "queueing the frames of link %s: this kernel lacks %s, CONFIG_NET_SCH_%s (see: modinfo sch_%s): %w", name, kind, strings.ToUpper(kind), kind, err)
	}
	return fmt.Errorf("queueing the frames of link %s by %s: %w", name, kind, err)
}

func takeQueue(h *kernel.Host, ns, name string) error {
	links, link, err := lookUp(h, ns, name)
	if kernel.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	queues, err := h.Queues(ns)
	if err != nil {
		return err
	}
	queue, there := queues[name]
	switch {
	case !there:
		return nil
	case queue.Handle != queueHandle:
		return linkspan.Errorf(linkspan.ErrConflict, "the queueing discipline %s of link %s is not ours and stays (see: %s qdisc show dev %s)", queue.Kind, name, tcIn(ns), name)
	}
	err = links.QdiscDel(&netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: queueHandle, Parent: netlink.HANDLE_ROOT}, QdiscType: queue.Kind})
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("removing the queueing discipline of link %s: %w", name, err)
	}
	return nil
}

func checkQueue(h *kernel.Host, ns, name string, want kernel.Queue) error {
	if _, err := find(h, ns, name); err != nil {
		return err
	}
	queues, err := h.Queues(ns)
	if err != nil {
		return err
	}
	got, there := queues[name]
	if !there {
		return fmt.Errorf("link %s has no queueing discipline %s (see: %s qdisc show dev %s)", name, want.Kind, tcIn(ns), name)
	}
	want.Handle = queueHandle
	if got != want {
		return fmt.Errorf("the queueing discipline of link %s is not as it was set (see: %s qdisc show dev %s)", name, tcIn(ns), name)
	}
	return nil
}
