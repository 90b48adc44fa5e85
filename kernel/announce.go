package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Announcer tells the neighbours of an interface which addresses it has, so
// that none goes on using the MAC that had them before: by ARP for IPv4 (RFC
// 5227 section 3, "announcement"), by unsolicited neighbour advertisements for
// IPv6 (RFC 4861 section 7.2.6). By hand:
//
//	ip netns exec SANDBOX arping -c 1 -U -I eth0 10.77.0.2
//
// Its sockets stay in the namespace that they were opened in, and keep it alive:
// close it before the namespace goes. It is not safe for concurrent use.
type Announcer struct {
	index int
	mac   net.HardwareAddr
	four  []netip.Addr
	six   []neighbour
	arp   int // packet socket, or -1
}

// neighbour is an address with the socket that is bound to it.
type neighbour struct {
	addr   netip.Addr
	socket int
}

// Announcer opens what announcing addresses of a link in a namespace needs.
func (h *Host) Announcer(ns, link string, addrs []netip.Addr) (*Announcer, error) {
	links, err := h.Links(ns)
	if err != nil {
		return nil, err
	}
	found, err := links.LinkByName(link)
	if err != nil {
		return nil, fmt.Errorf("looking up link %s to announce its addresses: %w", link, err)
	}
	a := &Announcer{index: found.Attrs().Index, mac: found.Attrs().HardwareAddr, arp: -1}
	err = h.Inside(ns, func() error {
		for _, addr := range addrs {
			if err := a.open(addr); err != nil {
				return fmt.Errorf("opening a socket to announce %s: %w", addr, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Announcer) open(addr netip.Addr) (err error) {
	if addr.Is4() {
		a.four = append(a.four, addr)
		if a.arp < 0 {
			// Protocol 0: it receives nothing.
			a.arp, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		}
		return err
	}
	socket, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	a.six = append(a.six, neighbour{addr, socket})
	var nothing unix.ICMPv6Filter
	for i := range nothing.Data {
		nothing.Data[i] = ^uint32(0)
	}
	return errors.Join(
		unix.SetsockoptICMPv6Filter(socket, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &nothing),
		unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
		unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, a.index),
		unix.Bind(socket, &unix.SockaddrInet6{Addr: addr.As16(), ZoneId: uint32(a.index)}), // a link-local address is one of a link
	)
}

// Announce tells of each address once. It goes on past one that fails.
func (a *Announcer) Announce() error {
	var errs []error
	for _, addr := range a.four {
		if err := unix.Sendto(a.arp, arpAnnouncement(a.mac, addr), 0, &unix.SockaddrLinklayer{
			Protocol: bigEndian(unix.ETH_P_ARP), Ifindex: a.index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		}); err != nil {
			errs = append(errs, fmt.Errorf("announcing %s: %w", addr, err))
		}
	}
	for _, six := range a.six {
		to := unix.SockaddrInet6{ZoneId: uint32(a.index), Addr: [16]byte{0: 0xff, 1: 0x02, 15: 0x01}} // all nodes of the link
		if err := unix.Sendto(six.socket, neighbourAdvertisement(a.mac, six.addr), 0, &to); err != nil {
			errs = append(errs, fmt.Errorf("announcing %s: %w", six.addr, err))
		}
	}
	return errors.Join(errs...)
}

// Close closes the sockets.
func (a *Announcer) Close() error {
	var errs []error
	if a.arp >= 0 {
		errs = append(errs, unix.Close(a.arp))
	}
	for _, six := range a.six {
		errs = append(errs, unix.Close(six.socket))
	}
	a.arp, a.four, a.six = -1, nil, nil
	return errors.Join(errs...)
}

// arpAnnouncement is an ARP request in which the sender asks for its own
// address (RFC 826, RFC 5227).
func arpAnnouncement(mac net.HardwareAddr, addr netip.Addr) []byte {
	const ethernet, ipv4, request = 1, 0x0800, 1
	packet := binary.BigEndian.AppendUint16(nil, ethernet)
	packet = binary.BigEndian.AppendUint16(packet, ipv4)
	packet = append(packet, 6, 4, 0, request)
	packet = append(append(packet, mac...), addr.AsSlice()...)
	return append(append(packet, make([]byte, 6)...), addr.AsSlice()...)
}

// neighbourAdvertisement is RFC 4861's section 4.4 with the flag Override and
// the option Target Link-Layer Address. The kernel fills in the checksum.
func neighbourAdvertisement(mac net.HardwareAddr, addr netip.Addr) []byte {
	const advertisement, override, targetAddress = 136, 0x20, 2
	packet := append([]byte{advertisement, 0, 0, 0, override, 0, 0, 0}, addr.AsSlice()...)
	return append(append(packet, targetAddress, 1), mac...)
}

func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
