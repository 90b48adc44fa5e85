package capture

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"unicode"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Names maps MACs (in lower case, with colons) and IP addresses to who has them.
type Names map[string]string

// Live returns a Sink that prints a line a frame: when, on which link, from
// whom, to whom, what.
//
//	15:04:05.012345  web eth0  web > db  ICMPv4 EchoRequest  98 bytes
func Live(w io.Writer, targets []Target, names Names) Sink {
	return func(f Frame) error {
		_, err := fmt.Fprintf(w, "%s  %s  %s  %d bytes\n",
			f.Info.Timestamp.Format("15:04:05.000000"), targets[f.Target].Title, names.Describe(f.Data), f.Info.Length)
		return err
	}
}

// Describe says from whom a frame is, to whom, and what it carries, in one line:
// whatever the frame holds, a terminal gets no control character from it.
func (n Names) Describe(frame []byte) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '.'
		}
		return r
	}, n.describe(frame))
}

func (n Names) describe(frame []byte) string {
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	ethernet, ok := packet.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if !ok {
		return "a frame without an Ethernet header"
	}
	from, to := n.station(ethernet.SrcMAC), n.station(ethernet.DstMAC)
	if arp, ok := packet.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		return fmt.Sprintf("%s > %s  %s", from, to, describeARP(arp))
	}
	var protocol string
	switch ip := packet.NetworkLayer().(type) {
	case *layers.IPv4:
		from, to, protocol = n.host(ip.SrcIP), n.host(ip.DstIP), ip.Protocol.String()
	case *layers.IPv6:
		from, to, protocol = n.host(ip.SrcIP), n.host(ip.DstIP), ip.NextHeader.String()
	default:
		return fmt.Sprintf("%s > %s  %s", from, to, ethernet.EthernetType)
	}
	sourcePort, targetPort, what := describeTransport(packet, protocol)
	return fmt.Sprintf("%s%s > %s%s  %s", from, sourcePort, to, targetPort, what)
}

func (n Names) station(mac net.HardwareAddr) string {
	text := mac.String()
	switch {
	case n[text] != "":
		return n[text]
	case text == "ff:ff:ff:ff:ff:ff":
		return "all"
	}
	return text
}

func (n Names) host(ip net.IP) string {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return "?"
	}
	text := addr.Unmap().String()
	if name := n[text]; name != "" {
		return name
	}
	return text
}

func describeARP(arp *layers.ARP) string {
	sender, _ := netip.AddrFromSlice(arp.SourceProtAddress)
	target, _ := netip.AddrFromSlice(arp.DstProtAddress)
	switch {
	case sender == target:
		return fmt.Sprintf("ARP announces %s", sender)
	case arp.Operation == layers.ARPRequest:
		return fmt.Sprintf("ARP who has %s? tell %s", target, sender)
	}
	return fmt.Sprintf("ARP %s is at %s", sender, net.HardwareAddr(arp.SourceHwAddress))
}

// describeTransport returns the ports, with a colon, and what the packet is.
func describeTransport(packet gopacket.Packet, protocol string) (from, to, what string) {
	if dns, ok := packet.Layer(layers.LayerTypeDNS).(*layers.DNS); ok {
		what = describeDNS(dns)
	}
	switch l := packet.TransportLayer().(type) {
	case *layers.TCP:
		return fmt.Sprintf(":%d", l.SrcPort), fmt.Sprintf(":%d", l.DstPort), strings.TrimSpace("TCP " + flags(l) + " " + what)
	case *layers.UDP:
		return fmt.Sprintf(":%d", l.SrcPort), fmt.Sprintf(":%d", l.DstPort), strings.TrimSpace("UDP " + what)
	}
	if icmp, ok := packet.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		return "", "", "ICMPv4 " + icmp.TypeCode.String()
	}
	if icmp, ok := packet.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		return "", "", "ICMPv6 " + icmp.TypeCode.String()
	}
	return "", "", protocol
}

func flags(tcp *layers.TCP) string {
	var set []string
	for _, flag := range []struct {
		on   bool
		name string
	}{{tcp.SYN, "SYN"}, {tcp.FIN, "FIN"}, {tcp.RST, "RST"}, {tcp.PSH, "PSH"}, {tcp.ACK, "ACK"}} {
		if flag.on {
			set = append(set, flag.name)
		}
	}
	return strings.Join(set, " ")
}

func describeDNS(dns *layers.DNS) string {
	verb := "DNS asks"
	if dns.QR {
		verb = "DNS answers " + dns.ResponseCode.String() + " to"
	}
	for _, question := range dns.Questions {
		return fmt.Sprintf("%s %s %s", verb, question.Type, question.Name)
	}
	return verb + " nothing"
}
