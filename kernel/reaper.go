package kernel

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// reapDelay is how long the reaper lets doomed links gather: links that are
// deleted in one request share their grace periods.
const reapDelay = 4 * time.Millisecond

// reaper deletes doomed links behind everybody's back, many in one request.
//
//	Doom: down ─ no master ─ name freed ─ group Doomed ──▶ reaper: RTM_DELLINK of the group
type reaper struct {
	host *Host
	wake chan struct{}
	done chan struct{}

	mu     sync.Mutex
	inside map[string]bool // pinned namespaces that hold doomed links
}

func newReaper(h *Host) *reaper {
	r := &reaper{host: h, wake: make(chan struct{}, 1), done: make(chan struct{}), inside: make(map[string]bool)}
	go r.run()
	return r
}

func (r *reaper) run() {
	defer close(r.done)
	for range r.wake {
		time.Sleep(reapDelay)
		r.mu.Lock()
		inside := r.inside
		r.inside = make(map[string]bool)
		r.mu.Unlock()
		// What fails stays doomed: the next round, or Reap at the next start, takes it.
		r.host.deleteGroup("", Doomed) //nolint:errcheck // nobody waits for the answer
		for ns := range inside {
			r.host.deleteGroup(ns, Doomed) //nolint:errcheck // it goes with its namespace at the latest
		}
	}
}

// poke wakes the reaper; ns names the pinned namespace that it has to look
// into beside the machine's own, "" none.
func (r *reaper) poke(ns string) {
	if ns != "" {
		r.mu.Lock()
		r.inside[ns] = true
		r.mu.Unlock()
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reaper) close() {
	close(r.wake)
	<-r.done
}

// Reap deletes at once every link that is doomed, including those that an
// earlier process left, and waits until they are gone (30 ms and more).
func (h *Host) Reap() error { return h.deleteGroup("", Doomed) }

// Doom cuts a link of ours off and frees its name, in about 0.1 ms, and leaves
// the deletion to the reaper. A link that is gone is success; one that bears
// neither Mark nor Doomed is left alone and reported with kind ErrConflict.
// For a veth pair the peer, in namespace peerNS, goes down and loses its name
// as well.
func (h *Host) Doom(name, peerNS string) error { return h.doom("", name, peerNS) }

// DoomInside is Doom for a link in a pinned namespace whose other half, if any,
// is elsewhere: a macvlan. A namespace that is gone took the link along.
func (h *Host) DoomInside(ns, name string) error { return h.doom(ns, name, "") }

func (h *Host) doom(ns, name, peerNS string) error {
	links, err := h.Links(ns)
	if IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	link, err := links.LinkByName(name)
	if IsGone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking up link %s: %w", name, err)
	}
	attrs := link.Attrs()
	if attrs.Group != Mark && attrs.Group != Doomed {
		return linkspan.Errorf(linkspan.ErrConflict, "link %s is not ours (group %d, not %d) and is left alone (see: ip -d link show %s)", name, attrs.Group, Mark, name)
	}
	if link.Type() == "veth" {
		h.silencePeer(peerNS, attrs.ParentIndex)
	}
	if attrs.Flags&net.FlagUp != 0 { // older kernels rename no link that is up
		err = links.LinkSetDown(link)
	}
	if err == nil {
		err = h.cutOff(ns, attrs.Index)
	}
	if IsGone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cutting off link %s: %w", name, err)
	}
	h.reaper.poke(ns)
	return nil
}

// cutOff takes a link that is down off its bridge, renames it, and puts it into
// group Doomed, in one request: each one waits its turn for the lock that all
// changes of links share.
func (h *Host) cutOff(ns string, index int) error {
	d, err := h.door(ns)
	if err != nil {
		return err
	}
	socket, err := d.rawSocket()
	if err != nil {
		return err
	}
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: socket}
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(0)))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(fmt.Sprintf("doomed%d", index))))
	request.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(Doomed)))
	_, err = request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// silencePeer frees the name of a doomed veth's other end, so that the same
// name can be used again in that namespace at once. It may be gone already,
// with its namespace: then there is nothing to do.
func (h *Host) silencePeer(ns string, index int) {
	if ns == "" || index == 0 {
		return
	}
	links, err := h.Links(ns)
	if err != nil {
		return
	}
	peer := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	if links.LinkSetDown(peer) == nil {
		links.LinkSetName(peer, fmt.Sprintf("doomed%d", index)) //nolint:errcheck // gone in the meantime: nothing to free
	}
}

// deleteGroup deletes every link of a group in a namespace in one request. An
// empty group is success.
func (h *Host) deleteGroup(ns string, group uint32) error {
	return h.Inside(ns, func() error {
		req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		if err != nil && !IsGone(err) {
			return fmt.Errorf("deleting the links of group %d: %w", group, err)
		}
		return nil
	})
}

// IsGone tells whether a netlink or system call failed because its object, or
// the namespace of its object, does not exist.
func IsGone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) ||
		errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, linkspan.ErrNotFound)
}

// Dump repeats a dump for as long as the kernel reports that it was
// interrupted by a change, at most ten times (NLM_F_DUMP_INTR in
// Documentation/userspace-api/netlink/intro.rst).
func Dump[T any](list func() ([]T, error)) ([]T, error) {
	for range 10 {
		items, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return items, err
		}
	}
	return nil, fmt.Errorf("dumping: interrupted ten times in a row: %w", netlink.ErrDumpInterrupted)
}
