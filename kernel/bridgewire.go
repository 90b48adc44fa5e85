package kernel

import (
	"fmt"
	"net"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// Attributes of links of kind bridge and of their ports: the enumerations
// IFLA_BR_ and IFLA_BRPORT_ of <linux/if_link.h>.
const (
	bridgeForwardDelay = iota + 1
	bridgeHelloTime
	bridgeMaxAge
	bridgeAgeingTime
	bridgeSTP
	bridgePriority
	_
	_
	_
	bridgeRootID
	bridgeID
	bridgeRootPort
	bridgeRootCost
	bridgeTopologyChange
	bridgeChangeDetected
	bridgeHelloTimer
	bridgeTCNTimer
	bridgeChangeTimer
	bridgeCollectorTimer
	_
	_
	_
	bridgeSnooping
)

const (
	portState = iota + 1
	portPriority
	portCost
	portHairpin
	portRootID             = 13
	portDesignatedID       = 14
	portDesignatedPort     = 15
	portDesignatedCost     = 16
	portID                 = 17
	portNumber             = 18
	portChangeAcknowledged = 19
	portConfigDue          = 20
	portMessageAge         = 21
	portForwardDelay       = 22
	portHold               = 23
	portIsolated           = 33
)

const userTick = 10 * time.Millisecond // USER_HZ is 100 on every architecture of today

// BridgeSetting is a parameter of a bridge that may be set.
type BridgeSetting uint16

// The parameters of a bridge: times are in hundredths of a second.
const (
	BridgeForwardDelay BridgeSetting = bridgeForwardDelay
	BridgeHelloTime    BridgeSetting = bridgeHelloTime
	BridgeMaxAge       BridgeSetting = bridgeMaxAge
	BridgeAgeingTime   BridgeSetting = bridgeAgeingTime
	BridgeSTP          BridgeSetting = bridgeSTP      // 0 or 1
	BridgePriority     BridgeSetting = bridgePriority // 16 bits
	BridgeSnooping     BridgeSetting = bridgeSnooping // 0 or 1: follow who listens to which group
)

// PortSetting is a parameter of a bridge's port that may be set.
type PortSetting uint16

// The parameters of a port.
const (
	PortPriority PortSetting = portPriority // 6 bits
	PortCost     PortSetting = portCost     // 1 to 65,535
	PortHairpin  PortSetting = portHairpin  // 0 or 1
)

// SetBridge sets a parameter of a bridge in a namespace, "" for the machine's own.
// Errors are the kernel's own numbers: unix.ERANGE for a value that IEEE
// 802.1D does not allow.
func (h *Host) SetBridge(ns string, index int, setting BridgeSetting, value uint32) error {
	return h.change(ns, unix.AF_UNSPEC, index, func(attributes *netlink.AttributeEncoder) {
		attributes.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
			info.String(unix.IFLA_INFO_KIND, "bridge")
			info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
				switch setting {
				case BridgePriority:
					data.Uint16(uint16(setting), uint16(value))
				case BridgeSnooping:
					data.Uint8(uint16(setting), uint8(value))
				default:
					data.Uint32(uint16(setting), value)
				}
				return nil
			})
			return nil
		})
	})
}

// SetPort sets a parameter of the port that a link is of its bridge. Errors are
// as those of SetBridge.
func (h *Host) SetPort(ns string, index int, setting PortSetting, value uint32) error {
	return h.change(ns, unix.AF_BRIDGE, index, func(attributes *netlink.AttributeEncoder) {
		attributes.Nested(unix.IFLA_PROTINFO, func(port *netlink.AttributeEncoder) error {
			switch setting {
			case PortPriority:
				port.Uint16(uint16(setting), uint16(value))
			case PortCost:
				port.Uint32(uint16(setting), value)
			default:
				port.Uint8(uint16(setting), uint8(value))
			}
			return nil
		})
	})
}

// change sends new attributes of one link.
func (h *Host) change(ns string, family uint8, index int, fill func(*netlink.AttributeEncoder)) error {
	attributes := netlink.NewAttributeEncoder()
	fill(attributes)
	encoded, err := attributes.Encode()
	if err != nil {
		return err
	}
	kind := netlink.HeaderType(unix.RTM_NEWLINK)
	if family == unix.AF_BRIDGE {
		kind = unix.RTM_SETLINK
	}
	body := make([]byte, unix.SizeofIfInfomsg, unix.SizeofIfInfomsg+len(encoded))
	body[0] = family
	nlenc.PutInt32(body[4:8], int32(index))
	_, err = h.send(ns, netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(body, encoded...),
	})
	return err
}

// ask requests all objects of a kind.
func (h *Host) ask(ns string, kind netlink.HeaderType, body []byte) ([]netlink.Message, error) {
	return h.send(ns, netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump}, Data: body})
}

// send makes a request on a socket of its own: these messages have attributes
// that the handle of Links does not know.
func (h *Host) send(ns string, request netlink.Message) ([]netlink.Message, error) {
	fd, err := h.FD(ns)
	if err != nil {
		return nil, err
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: fd})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Execute(request)
}

type parsedLink struct {
	name   string
	index  int
	master int
	bridge *Bridge
	port   *BridgePort
}

func parseLink(data []byte) (parsedLink, error) {
	var l parsedLink
	if len(data) < unix.SizeofIfInfomsg {
		return l, fmt.Errorf("a message of %d bytes is too short for a link", len(data))
	}
	l.index = int(int32(nlenc.Uint32(data[4:8])))
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return l, err
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.IFLA_IFNAME:
			l.name = attributes.String()
		case unix.IFLA_MASTER:
			l.master = int(attributes.Uint32())
		case unix.IFLA_LINKINFO:
			attributes.Nested(l.parseInfo)
		}
	}
	if l.bridge != nil {
		l.bridge.Name, l.bridge.Index = l.name, l.index
	}
	if l.port != nil {
		l.port.Name, l.port.Index = l.name, l.index
	}
	return l, attributes.Err()
}

func (l *parsedLink) parseInfo(info *netlink.AttributeDecoder) error {
	var kind, slaveKind string
	for info.Next() {
		switch info.Type() {
		case unix.IFLA_INFO_KIND:
			kind = info.String()
		case unix.IFLA_INFO_SLAVE_KIND:
			slaveKind = info.String()
		case unix.IFLA_INFO_DATA:
			if kind == "bridge" {
				l.bridge = &Bridge{}
				info.Nested(l.bridge.parse)
			}
		case unix.IFLA_INFO_SLAVE_DATA:
			if slaveKind == "bridge" {
				l.port = &BridgePort{}
				info.Nested(l.port.parse)
			}
		}
	}
	return info.Err()
}

func (b *Bridge) parse(data *netlink.AttributeDecoder) error {
	for data.Next() {
		switch data.Type() {
		case bridgeForwardDelay:
			b.ForwardDelay = ticks(uint64(data.Uint32()))
		case bridgeHelloTime:
			b.HelloTime = ticks(uint64(data.Uint32()))
		case bridgeMaxAge:
			b.MaxAge = ticks(uint64(data.Uint32()))
		case bridgeAgeingTime:
			b.AgeingTime = ticks(uint64(data.Uint32()))
		case bridgeSTP:
			b.STP = data.Uint32() != 0
		case bridgeRootID:
			b.Root = parseBridgeID(data.Bytes())
		case bridgeID:
			b.ID = parseBridgeID(data.Bytes())
		case bridgeRootPort:
			b.RootPort = data.Uint16()
		case bridgeRootCost:
			b.RootCost = data.Uint32()
		case bridgeTopologyChange:
			b.TopologyChange = data.Uint8() != 0
		case bridgeChangeDetected:
			b.ChangeDetected = data.Uint8() != 0
		case bridgeHelloTimer:
			b.Hello = ticks(data.Uint64())
		case bridgeTCNTimer:
			b.TCN = ticks(data.Uint64())
		case bridgeChangeTimer:
			b.Change = ticks(data.Uint64())
		case bridgeCollectorTimer:
			b.Collector = ticks(data.Uint64())
		case bridgeSnooping:
			b.Snooping = data.Uint8() != 0
		}
	}
	return data.Err()
}

func (p *BridgePort) parse(data *netlink.AttributeDecoder) error {
	for data.Next() {
		switch data.Type() {
		case portState:
			p.State = PortState(data.Uint8())
		case portCost:
			p.Cost = data.Uint32()
		case portHairpin:
			p.Hairpin = data.Uint8() != 0
		case portIsolated:
			p.Isolated = data.Uint8() != 0
		case portRootID:
			p.Root = parseBridgeID(data.Bytes())
		case portDesignatedID:
			p.Designated = parseBridgeID(data.Bytes())
		case portDesignatedPort:
			p.DesignatedPort = data.Uint16()
		case portDesignatedCost:
			p.DesignatedCost = data.Uint16()
		case portID:
			p.ID = data.Uint16()
		case portNumber:
			p.Number = data.Uint16()
		case portChangeAcknowledged:
			p.ChangeAcknowledged = data.Uint8() != 0
		case portConfigDue:
			p.ConfigDue = data.Uint8() != 0
		case portMessageAge:
			p.MessageAge = ticks(data.Uint64())
		case portForwardDelay:
			p.ForwardDelay = ticks(data.Uint64())
		case portHold:
			p.Hold = ticks(data.Uint64())
		}
	}
	return data.Err()
}

func ticks(n uint64) time.Duration { return time.Duration(n) * userTick }

func parseBridgeID(raw []byte) BridgeID {
	if len(raw) != 8 {
		return BridgeID{}
	}
	return BridgeID{uint16(raw[0])<<8 | uint16(raw[1]), net.HardwareAddr(raw[2:])}
}

func parseStation(data []byte) (entry ForwardingEntry, master int, err error) {
	if len(data) < unix.SizeofNdMsg {
		return entry, 0, fmt.Errorf("a message of %d bytes is too short for a neighbour", len(data))
	}
	entry.Link = int(int32(nlenc.Uint32(data[4:8])))
	state := nlenc.Uint16(data[8:10])
	entry.Local = state&unix.NUD_PERMANENT != 0
	entry.Fixed = entry.Local || state&unix.NUD_NOARP != 0
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofNdMsg:])
	if err != nil {
		return entry, 0, err
	}
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NDA_LLADDR:
			entry.MAC = net.HardwareAddr(attributes.Bytes())
		case unix.NDA_MASTER:
			master = int(attributes.Uint32())
		case unix.NDA_CACHEINFO:
			// struct nda_cacheinfo: confirmed, used, updated, references.
			if info := attributes.Bytes(); len(info) >= 12 && !entry.Fixed {
				entry.Age = ticks(uint64(nlenc.Uint32(info[8:12])))
			}
		}
	}
	return entry, master, attributes.Err()
}
