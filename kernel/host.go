package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/google/nftables"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// Mark is the link group (IFLA_GROUP) of every link that Linkspan makes. It
// travels in the creating message, so that no instant exists in which a link
// of ours is unmarked.
const Mark uint32 = 27763

// Doomed is the link group of links that are cut off and wait for the reaper.
const Doomed uint32 = 27764

// NetnsDir is where ip-netns(8) keeps its pins.
const NetnsDir = "/run/netns"

// Host is one machine: the namespace it was opened in and those it pinned.
// All methods are safe for concurrent use.
type Host struct {
	self   netns.NsHandle // the machine's own namespace
	native bool           // self is the namespace of the process: no thread need move
	reaper *reaper
	routes routeWatch
	trees  sysctlTrees
	deaf   deafness

	mu    sync.Mutex
	doors map[string]*door // by name of the pinned namespace; "" is self
}

// door is what is open into one namespace.
type door struct {
	ns    netns.NsHandle // see fd
	links *netlink.Handle

	life sync.RWMutex // held for reading while ns is in use
	shut bool         // ns is closed

	mu    sync.Mutex      // held over a transaction
	rules *nftables.Conn  // opened on first use
	port  atomic.Uint32   // of the socket for rules: what the kernel calls the maker of its changes
	flows *netlink.Handle // of connection tracking; opened on first use

	rawMu sync.Mutex
	raw   *nl.SocketHandle // for requests that links has no words for; opened on first use
}

// Open returns a Host for the namespace that the process lives in.
func Open() (*Host, error) {
	self, err := netns.GetFromPid(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("opening own network namespace: %w", err)
	}
	return open(self, true)
}

// OpenAt returns a Host for the machine whose network namespace is at path:
// /proc/PID/ns/net or a pin under NetnsDir.
func OpenAt(path string) (*Host, error) {
	self, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("opening network namespace %s: %w", path, err)
	}
	if err := verifyNetns(self); err != nil {
		self.Close()
		return nil, fmt.Errorf("opening network namespace %s: %w", path, err)
	}
	return open(self, false)
}

func open(self netns.NsHandle, native bool) (*Host, error) {
	h := &Host{self: self, native: native, doors: make(map[string]*door)}
	if _, err := h.door(""); err != nil {
		self.Close()
		return nil, err
	}
	h.reaper = newReaper(h)
	return h, nil
}

// Close waits for the reaper and closes every socket. Nothing in the kernel
// changes beyond what was doomed already.
func (h *Host) Close() error {
	h.reaper.close()
	h.routes.close()
	h.trees.close()
	h.deaf.close()
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for name, d := range h.doors {
		errs = append(errs, d.close())
		delete(h.doors, name)
	}
	return errors.Join(errs...)
}

// Links returns the route netlink socket of a namespace, "" for the machine's
// own. Requests on it are serialised. It stays valid until Unpin or Close; do
// not close it.
func (h *Host) Links(ns string) (*netlink.Handle, error) {
	d, err := h.door(ns)
	if err != nil {
		return nil, err
	}
	return d.links, nil
}

// Transact runs fn with the nftables socket of a namespace and sends what fn
// queued as one transaction: all of it takes effect, or none. Transactions of
// one namespace are serialised. The socket lasts as long as the namespace is
// pinned, because closing one after a delete waits some 22 ms; only a failure
// replaces it, since what is queued on it cannot be taken back.
func (h *Host) Transact(ns string, fn func(*nftables.Conn) error) error {
	d, err := h.door(ns)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rules == nil {
		err = d.through(func(fd int) (err error) {
			d.rules, err = nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(fd), nftables.WithSockOptions(roomy, d.known))
			return err
		})
		if err != nil {
			d.rules = nil
			return fmt.Errorf("opening an nftables socket in %s: %w", nameOf(ns), err)
		}
	}
	err = fn(d.rules)
	if err == nil {
		err = d.rules.Flush()
	}
	if err != nil {
		go d.rules.CloseLasting() //nolint:errcheck // closing may wait for a grace period; there is nobody left to tell
		d.rules = nil
	}
	return err
}

// known notes the port of the socket for rules (netlink(7), nl_pid).
func (d *door) known(conn *mdlayher.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var addr unix.Sockaddr
	controlErr := raw.Control(func(fd uintptr) { addr, err = unix.Getsockname(int(fd)) })
	if own, ok := addr.(*unix.SockaddrNetlink); ok {
		d.port.Store(own.Pid)
	}
	return errors.Join(controlErr, err)
}

// roomy makes a socket take a transaction of thousands of elements, which the
// kernel wants in one message.
func roomy(conn *mdlayher.Conn) error { return conn.SetWriteBuffer(8 << 20) }

// FD returns a descriptor of a namespace, for messages that name one (such as
// IFLA_NET_NS_FD). It belongs to the Host: use it before Unpin, never close it.
func (h *Host) FD(ns string) (int, error) {
	d, err := h.door(ns)
	if err != nil {
		return -1, err
	}
	fd := -1
	err = d.through(func(open int) error {
		fd = open
		return nil
	})
	return fd, err
}

// through calls fn with the namespace's descriptor, which stays open meanwhile:
// somebody else may be unpinning the namespace.
func (d *door) through(fn func(fd int) error) error {
	d.life.RLock()
	defer d.life.RUnlock()
	if d.shut {
		return linkspan.Errorf(linkspan.ErrNotFound, "the network namespace is gone (see: ip netns)")
	}
	return fn(int(d.ns))
}

func (h *Host) door(name string) (*door, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.doors[name]; d != nil {
		if name == "" || d.leadsTo(Pin(name)) {
			return d, nil
		}
		// Somebody unpinned that namespace (ip netns del): an open door keeps it
		// alive, and its name may stand for another by now.
		delete(h.doors, name)
		go d.close() //nolint:errcheck // the namespace is gone: there is nothing left to tell
	}
	ns := h.self
	if name != "" {
		var err error
		if ns, err = openPin(name); err != nil {
			return nil, err
		}
	}
	links, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		if name != "" {
			ns.Close()
		}
		return nil, fmt.Errorf("opening a netlink socket in %s: %w", nameOf(name), err)
	}
	d := &door{ns: ns, links: links}
	h.doors[name] = d
	return d, nil
}

func openPin(name string) (netns.NsHandle, error) {
	ns, err := netns.GetFromPath(Pin(name))
	if errors.Is(err, fs.ErrNotExist) {
		return ns, linkspan.Errorf(linkspan.ErrNotFound, "network namespace %s does not exist (see: ip netns): %w", name, err)
	}
	if err != nil {
		return ns, fmt.Errorf("opening network namespace %s: %w", name, err)
	}
	if err := verifyNetns(ns); err != nil {
		ns.Close()
		return ns, linkspan.Errorf(linkspan.ErrNotFound, "%s is no network namespace, only a left-over file (see: findmnt %s): %w", Pin(name), Pin(name), err)
	}
	return ns, nil
}

// leadsTo tells whether the namespace pinned at path is still the one behind
// the door.
func (d *door) leadsTo(path string) bool {
	var behind, pinned unix.Stat_t
	return unix.Fstat(int(d.ns), &behind) == nil && unix.Stat(path, &pinned) == nil &&
		behind.Dev == pinned.Dev && behind.Ino == pinned.Ino
}

// shut closes what is open into a namespace. The nftables socket is closed
// behind the caller's back, since that may wait for a grace period.
func (h *Host) shut(name string) {
	h.mu.Lock()
	d := h.doors[name]
	delete(h.doors, name)
	h.mu.Unlock()
	if d != nil {
		go d.close() //nolint:errcheck // the namespace is gone: there is nothing left to tell
	}
}

// rawSocket returns a route netlink socket for requests that are put together
// by hand. It lasts as long as the door, and serialises its requests.
func (d *door) rawSocket() (*nl.SocketHandle, error) {
	d.rawMu.Lock()
	defer d.rawMu.Unlock()
	if d.raw == nil {
		err := d.through(func(fd int) error {
			socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(fd), netns.None(), unix.NETLINK_ROUTE)
			if err == nil {
				d.raw = &nl.SocketHandle{Socket: socket}
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("opening a netlink socket: %w", err)
		}
	}
	return d.raw, nil
}

func (d *door) close() error {
	d.links.Close()
	d.rawMu.Lock()
	if d.raw != nil {
		d.raw.Close()
	}
	d.rawMu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.rules != nil {
		err = d.rules.CloseLasting()
	}
	if d.flows != nil {
		d.flows.Close()
	}
	d.life.Lock()
	defer d.life.Unlock()
	d.shut = true
	return errors.Join(err, d.ns.Close())
}

// verifyNetns tells a network namespace from one of another kind, and from the
// empty file that stays behind when a pin was unmounted but not removed.
func verifyNetns(ns netns.NsHandle) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(ns), &st); err != nil {
		return err
	}
	if st.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("it is a plain file, of file system type %#x", st.Type)
	}
	kind, err := unix.IoctlRetInt(int(ns), unix.NS_GET_NSTYPE)
	if err != nil {
		return err
	}
	if kind != unix.CLONE_NEWNET {
		return fmt.Errorf("it is a namespace of another kind, %#x", kind)
	}
	return nil
}

// Pin returns the path at which a namespace of that name is pinned.
func Pin(name string) string { return filepath.Join(NetnsDir, name) }

func nameOf(ns string) string {
	if ns == "" {
		return "the host's network namespace"
	}
	return "network namespace " + ns
}
