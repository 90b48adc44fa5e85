package kernel

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Queue is the queueing discipline at the root of a link: the order and pace in
// which its frames leave.
type Queue struct {
	Kind   string // tbf, netem …
	Handle uint32
	Rate   uint64        // bits per second; 0: no limit that this package can read
	Delay  time.Duration // of each frame
	Loss   uint32        // frames of a million
}

// Queues reads the queueing disciplines that somebody gave to links of a
// namespace, by link; those that every link has by itself are left out.
func (h *Host) Queues(ns string) (map[string]Queue, error) {
	handle, err := h.Links(ns)
	if err != nil {
		return nil, err
	}
	all, err := Dump(func() ([]netlink.Qdisc, error) { return handle.QdiscList(nil) })
	if err != nil {
		return nil, fmt.Errorf("listing the queueing disciplines of %s (see: tc qdisc): %w", nameOf(ns), err)
	}
	names, err := linkNames(handle)
	if err != nil {
		return nil, fmt.Errorf("listing the links of %s (see: ip link): %w", nameOf(ns), err)
	}
	queues := make(map[string]Queue)
	for _, qdisc := range all {
		attrs := qdisc.Attrs()
		if attrs.Handle == 0 || attrs.Parent != netlink.HANDLE_ROOT {
			continue
		}
		queue := Queue{Kind: qdisc.Type(), Handle: attrs.Handle}
		switch q := qdisc.(type) {
		case *netlink.Tbf:
			queue.Rate = q.Rate * 8
		case *netlink.Netem:
			queue.Rate = q.Rate64 * 8
			queue.Delay = time.Duration(math.Round(float64(q.Latency)/netlink.TickInUsec())) * time.Microsecond
			queue.Loss = uint32(math.Round(float64(q.Loss) / math.MaxUint32 * LossScale))
		}
		queues[names[attrs.LinkIndex]] = queue
	}
	return queues, nil
}

// LossScale is the whole of which a loss is a share: a million frames.
const LossScale = 1_000_000

// LossChain is the one chain of a LossTable.
const LossChain = "arriving"

// LossTable names the netdev table that drops frames which arrive on a link.
func LossTable(link string) string { return "linkspan-loss-" + link }

// Loss is what a LossTable does.
type Loss struct {
	Share uint32 // frames of a million that are dropped
	Lost  uint64 // frames dropped so far
}

// Losses reads the tables that drop frames by chance, by link.
func (h *Host) Losses(ns string) (map[string]Loss, error) {
	losses := make(map[string]Loss)
	err := h.Transact(ns, func(conn *nftables.Conn) error {
		tables, err := conn.ListTablesOfFamily(nftables.TableFamilyNetdev)
		if err != nil {
			return err
		}
		for _, table := range tables {
			link, ours := strings.CutPrefix(table.Name, LossTable(""))
			if !ours {
				continue
			}
			rules, err := conn.GetRules(table, &nftables.Chain{Name: LossChain, Table: table})
			if err != nil {
				return err
			}
			losses[link] = lossOf(rules)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing what loses frames in %s (see: nft list tables netdev): %w", nameOf(ns), err)
	}
	return losses, nil
}

func lossOf(rules []*nftables.Rule) Loss {
	var loss Loss
	for _, rule := range rules {
		for _, e := range rule.Exprs {
			switch e := e.(type) {
			case *expr.Cmp:
				if len(e.Data) == 4 {
					loss.Share = uint32(e.Data[0])<<24 | uint32(e.Data[1])<<16 | uint32(e.Data[2])<<8 | uint32(e.Data[3])
				}
			case *expr.Counter:
				loss.Lost = e.Packets
			}
		}
	}
	return loss
}

// LacksQueue tells whether the kernel knows no queueing disciplines of a kind,
// netem for example. It tries one, in a network namespace that goes with the
// attempt.
func LacksQueue(kind string) (missing bool, err error) {
	err = onThrowawayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace to try a queueing discipline of kind %s in: %w", kind, err)
		}
		request := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
		request.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: 1, Parent: netlink.HANDLE_ROOT}) // lo is always the first link
		request.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kind)))
		_, answer := request.Execute(unix.NETLINK_ROUTE, 0)
		// A kind that is known may want more than its name, and refuses for that.
		missing = errors.Is(answer, unix.ENOENT)
		return nil
	})
	return missing, err
}
