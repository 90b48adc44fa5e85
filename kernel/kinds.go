package kernel

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// KnowsKind tells whether the kernel knows a kind of link that sits on another
// one: macvlan, ipvlan, vlan. It changes nothing (but for a module that the
// kernel may load to find out): it asks for a link on no other, and the kernel
// refuses that, in one word if it knows the kind and in another if not.
func (h *Host) KnowsKind(kind string) (bool, error) {
	known := false
	err := h.Inside("", func() error {
		request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
		request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
		request.AddData(info)
		_, err := request.Execute(unix.NETLINK_ROUTE, 0)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP):
			return nil
		case errors.Is(err, unix.EINVAL):
			known = true
			return nil
		case err == nil:
			return fmt.Errorf("asking the kernel for links of kind %s: it made one on nothing", kind)
		}
		return fmt.Errorf("asking the kernel for links of kind %s: %w", kind, err)
	})
	return known, err
}
