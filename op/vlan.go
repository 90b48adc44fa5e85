package op

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// ShareVLAN makes a link that takes one VLAN's frames from a trunk (802.1Q), or
// becomes one more user of the one that is there. Who uses it is written on the
// link itself, as an alternative name for each: the last one to undo removes
// it. One without our mark is somebody else's: it is used as it is and stays.
type ShareVLAN struct {
	Name   string
	Parent string
	ID     int    // 1 to 4094
	User   string // unique to the plan; names a user of the link
}

// userPrefix starts the alternative names that stand for users.
const userPrefix = "used-by-"

// Do makes the link, marked and up, if it is not there, and signs it.
func (o ShareVLAN) Do(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Name)
	if kernel.IsGone(err) {
		links, link, err = o.add(h)
	}
	switch {
	case err != nil:
		return err
	case link.Attrs().Group != kernel.Mark:
		return nil
	case link.Type() != "vlan":
		return linkspan.Errorf(linkspan.ErrConflict, "link %s is no VLAN but %s (see: ip -d link show %s)", o.Name, link.Type(), o.Name)
	}
	if err = links.LinkAddAltName(link, userPrefix+o.User); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("signing VLAN %s: %w", o.Name, err)
	}
	if err = links.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing VLAN %s up: %w", o.Name, err)
	}
	return nil
}

func (o ShareVLAN) add(h *kernel.Host) (*netlink.Handle, netlink.Link, error) {
	links, parent, err := lookUp(h, "", o.Parent)
	if err != nil {
		return nil, nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Group = o.Name, parent.Attrs().Index, kernel.Mark
	err = links.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: o.ID, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
	if err != nil && !errors.Is(err, unix.EEXIST) { // made by another plan at the same moment
		return nil, nil, adding("VLAN", o.Name, "", err)
	}
	return lookUp(h, "", o.Name)
}

// Undo takes the signature off, and removes the link when it was the last.
func (o ShareVLAN) Undo(_ context.Context, h *kernel.Host) error {
	links, link, err := lookUp(h, "", o.Name)
	if kernel.IsGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	attrs := link.Attrs()
	if attrs.Group != kernel.Mark {
		return nil
	}
	users := slices.DeleteFunc(slices.Clone(attrs.AltNames), func(name string) bool {
		return name == userPrefix+o.User || !strings.HasPrefix(name, userPrefix)
	})
	if len(users) == 0 {
		return h.Doom(o.Name, "")
	}
	if slices.Contains(attrs.AltNames, userPrefix+o.User) {
		err = links.LinkDelAltName(link, userPrefix+o.User)
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("giving VLAN %s up: %w", o.Name, err)
	}
	return nil
}

// Check finds the link, signed if it is ours.
func (o ShareVLAN) Check(_ context.Context, h *kernel.Host) error {
	_, link, err := lookUp(h, "", o.Name)
	if err != nil {
		return err
	}
	attrs := link.Attrs()
	if attrs.Group != kernel.Mark {
		return nil // whatever it is, its owner means it
	}
	vlan, ok := link.(*netlink.Vlan)
	if !ok || vlan.VlanId != o.ID {
		return fmt.Errorf("link %s is not VLAN %d (see: ip -d link show %s)", o.Name, o.ID, o.Name)
	}
	if !slices.Contains(attrs.AltNames, userPrefix+o.User) {
		return fmt.Errorf("VLAN %s does not bear the name %s (see: ip link show %s)", o.Name, userPrefix+o.User, o.Name)
	}
	return nil
}

func (o ShareVLAN) String() string {
	name := quote(o.Name)
	return fmt.Sprintf(`ip link show dev %[1]s >/dev/null 2>&1 || ip link add link %[2]s name %[1]s group %[3]d type vlan id %[4]d
test -z "$(ip -o link show dev %[1]s group %[3]d)" || { ip link property add dev %[1]s altname %[5]s; ip link set %[1]s up; }`,
		name, quote(o.Parent), kernel.Mark, o.ID, quote(userPrefix+o.User))
}
