package op

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// lookUp returns a link and the socket of its namespace.
func lookUp(h *kernel.Host, ns, name string) (*netlink.Handle, netlink.Link, error) {
	links, err := h.Links(ns)
	if err != nil {
		return nil, nil, err
	}
	link, err := links.LinkByName(name)
	if err != nil {
		if kernel.IsGone(err) {
			return nil, nil, linkspan.Errorf(linkspan.ErrNotFound, "link %s does not exist (see: %s link show): %w", name, ipIn(ns), err)
		}
		return nil, nil, fmt.Errorf("looking up link %s: %w", name, err)
	}
	return links, link, nil
}

func find(h *kernel.Host, ns, name string) (*netlink.LinkAttrs, error) {
	_, link, err := lookUp(h, ns, name)
	if err != nil {
		return nil, err
	}
	return link.Attrs(), nil
}

func linkAttrs(name, mac string, mtu int) (netlink.LinkAttrs, error) {
	attrs := netlink.NewLinkAttrs()
	hardware, err := net.ParseMAC(mac)
	if err != nil {
		return attrs, fmt.Errorf("adding link %s: %w", name, err)
	}
	attrs.Name, attrs.HardwareAddr, attrs.MTU = name, hardware, mtu
	return attrs, nil
}

// adding words the failure of a link's creation.
func adding(what, name, ns string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return linkspan.Errorf(linkspan.ErrConflict, "adding %s %s: a link of that name exists already (see: %s link show): %w", what, name, ipIn(ns), err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return linkspan.Errorf(linkspan.ErrUnsupported, "adding %s %s: this kernel does not know the kind (see: modinfo): %w", what, name, err)
	}
	return fmt.Errorf("adding %s %s: %w", what, name, err)
}

func checkMark(attrs *netlink.LinkAttrs) error {
	if attrs.Group != kernel.Mark {
		return fmt.Errorf("link %s lost its mark: group is %d, not %d (see: ip -d link show %s)", attrs.Name, attrs.Group, kernel.Mark, attrs.Name)
	}
	return nil
}

func checkMAC(ns string, attrs *netlink.LinkAttrs, want string) error {
	if got := attrs.HardwareAddr.String(); !strings.EqualFold(got, want) {
		return fmt.Errorf("link %s has MAC %s, not %s (see: %s link show %s)", attrs.Name, got, want, ipIn(ns), attrs.Name)
	}
	return nil
}

func checkMTU(ns string, attrs *netlink.LinkAttrs, want int) error {
	if want != 0 && attrs.MTU != want {
		return fmt.Errorf("link %s has MTU %d, not %d (see: %s link show %s)", attrs.Name, attrs.MTU, want, ipIn(ns), attrs.Name)
	}
	return nil
}

// ipIn returns the ip command for a namespace.
func ipIn(ns string) string {
	if ns == "" {
		return "ip"
	}
	return "ip -n " + quote(ns)
}

func mtuWords(mtu int) string {
	if mtu == 0 {
		return ""
	}
	return fmt.Sprintf(" mtu %d", mtu)
}

// quote makes a word safe for sh.
func quote(word string) string {
	plain := word != "" && strings.IndexFunc(word, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:./,@%", r)
	}) < 0
	if plain {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
