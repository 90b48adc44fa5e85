package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Proclaim tells whoever is behind a bridge, by its index, which MACs addresses
// have by now, in the place of the stations that have them and are heard nowhere
// near. Those who have another MAC in mind take the new one; others are left as
// they are. By hand, for IPv4:
//
//	arping -U -c 1 -I br-lab -s 10.77.0.3 10.77.0.3     # but with the station's MAC in it
//
// What an address's own host says of it is Announcer's part.
func (h *Host) Proclaim(bridge int, stations []Station) error {
	if len(stations) == 0 {
		return nil
	}
	return h.Inside("", func() error {
		socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening a socket to proclaim addresses: %w", err)
		}
		defer unix.Close(socket)
		var errs []error
		for _, s := range stations {
			mac, err := net.ParseMAC(s.MAC)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			to, packet := everybody(s.Addr, mac)
			to.Ifindex = bridge
			if err := unix.Sendto(socket, packet, 0, to); err != nil {
				errs = append(errs, fmt.Errorf("proclaiming %s: %w", s.Addr, err))
			}
		}
		return errors.Join(errs...)
	})
}

// everybody returns a packet that says who has an address, and where it goes.
func everybody(addr netip.Addr, mac net.HardwareAddr) (*unix.SockaddrLinklayer, []byte) {
	if addr.Is4() {
		return &unix.SockaddrLinklayer{
			Protocol: bigEndian(unix.ETH_P_ARP), Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		}, arpAnnouncement(mac, addr)
	}
	allNodes := netip.MustParseAddr("ff02::1")
	message := neighbourAdvertisement(mac, addr)
	const hopLimit = 255 // of neighbour discovery, or it is not from this link (RFC 4861 section 7.1.2)
	header := []byte{0x60, 0, 0, 0, 0, byte(len(message)), unix.IPPROTO_ICMPV6, hopLimit}
	header = append(append(header, addr.AsSlice()...), allNodes.AsSlice()...)
	binary.BigEndian.PutUint16(message[2:4], checksum6(addr, allNodes, message))
	return &unix.SockaddrLinklayer{
		Protocol: bigEndian(unix.ETH_P_IPV6), Halen: 6, Addr: [8]byte{0x33, 0x33, 0, 0, 0, 1},
	}, append(header, message...)
}

// checksum6 is that of an ICMPv6 message whose own checksum is 0 (RFC 4443
// section 2.3).
func checksum6(from, to netip.Addr, message []byte) uint16 {
	sum := uint32(len(message)) + unix.IPPROTO_ICMPV6
	for _, part := range [][]byte{from.AsSlice(), to.AsSlice(), message} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
