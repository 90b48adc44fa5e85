package kernel

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Bridge is all that the kernel tells of an Ethernet switch in software:
// IEEE 802.1D's parameters and timers, and its ports in order of their names.
type Bridge struct {
	Name  string
	Index int

	ID, Root BridgeID
	RootPort uint16
	RootCost uint32 // of the path to the root

	STP, Snooping                  bool
	MaxAge, HelloTime              time.Duration
	ForwardDelay, AgeingTime       time.Duration
	TopologyChange, ChangeDetected bool
	Hello, TCN, Change, Collector  time.Duration // what is left of the timers

	Ports []BridgePort
}

// BridgeID names a bridge among others: a priority, then a MAC.
type BridgeID struct {
	Priority uint16
	MAC      net.HardwareAddr
}

func (id BridgeID) String() string { return fmt.Sprintf("%04x.%x", id.Priority, []byte(id.MAC)) }

// BridgePort is a link that is plugged into a bridge.
type BridgePort struct {
	Name   string
	Index  int
	Number uint16 // among the bridge's ports, from 1
	ID     uint16 // priority and number

	State    PortState
	Cost     uint32
	Hairpin  bool // frames may leave by the port that they came in by
	Isolated bool

	Root, Designated               BridgeID
	DesignatedPort, DesignatedCost uint16
	MessageAge, ForwardDelay, Hold time.Duration // what is left of the timers
	ChangeAcknowledged, ConfigDue  bool
}

// PortState is where a port stands in the spanning tree (IEEE 802.1D, 8.4).
type PortState uint8

// Forwarding is the state in which a port passes frames.
const Forwarding PortState = 3

func (s PortState) String() string {
	if names := []string{"disabled", "listening", "learning", "forwarding", "blocking"}; int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("unknown (%d)", uint8(s))
}

// ForwardingEntry is a line of a bridge's table of stations.
type ForwardingEntry struct {
	MAC   net.HardwareAddr
	Port  uint16 // number of the port behind which the station is
	Link  int    // index of that port's link
	Local bool   // the station is the port itself
	Fixed bool   // set by hand: does not age
	Age   time.Duration
}

// Bridges reads the bridges of a namespace, "" for the machine's own, in order
// of their names: one request, whatever there is, and no look at /sys, which
// shows the namespace of whoever mounted it.
func (h *Host) Bridges(ns string) ([]Bridge, error) {
	replies, err := h.ask(ns, unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, fmt.Errorf("listing the bridges of %s (see: ip -d link show type bridge): %w", nameOf(ns), err)
	}
	var bridges []Bridge
	ports := map[int][]BridgePort{}
	for _, reply := range replies {
		l, err := parseLink(reply.Data)
		if err != nil {
			return nil, fmt.Errorf("reading a link of %s: %w", nameOf(ns), err)
		}
		if l.bridge != nil {
			bridges = append(bridges, *l.bridge)
		}
		if l.port != nil {
			ports[l.master] = append(ports[l.master], *l.port)
		}
	}
	for i := range bridges {
		bridges[i].Ports = ports[bridges[i].Index]
		slices.SortFunc(bridges[i].Ports, func(a, b BridgePort) int { return cmp.Compare(a.Name, b.Name) })
	}
	slices.SortFunc(bridges, func(a, b Bridge) int { return cmp.Compare(a.Name, b.Name) })
	return bridges, nil
}

// Forwarding reads the table of stations of a bridge, in order of their MACs.
// The bridge's own entries, which lead to no port, are left out.
func (h *Host) Forwarding(ns string, bridge Bridge) ([]ForwardingEntry, error) {
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = unix.AF_BRIDGE
	replies, err := h.ask(ns, unix.RTM_GETNEIGH, body)
	if err != nil {
		return nil, fmt.Errorf("listing the stations behind %s (see: bridge fdb show br %s): %w", bridge.Name, bridge.Name, err)
	}
	numbers := make(map[int]uint16, len(bridge.Ports))
	for _, port := range bridge.Ports {
		numbers[port.Index] = port.Number
	}
	var entries []ForwardingEntry
	for _, reply := range replies {
		entry, master, err := parseStation(reply.Data)
		if err != nil {
			return nil, fmt.Errorf("reading a station behind %s: %w", bridge.Name, err)
		}
		if number, known := numbers[entry.Link]; known && master == bridge.Index {
			entry.Port = number
			entries = append(entries, entry)
		}
	}
	slices.SortStableFunc(entries, func(a, b ForwardingEntry) int { return slices.Compare(a.MAC, b.MAC) })
	return entries, nil
}

// Setting returns a parameter in the unit of BridgeSetting.
func (b Bridge) Setting(setting BridgeSetting) uint32 {
	switch setting {
	case BridgeForwardDelay:
		return uint32(b.ForwardDelay / userTick)
	case BridgeHelloTime:
		return uint32(b.HelloTime / userTick)
	case BridgeMaxAge:
		return uint32(b.MaxAge / userTick)
	case BridgeAgeingTime:
		return uint32(b.AgeingTime / userTick)
	case BridgePriority:
		return uint32(b.ID.Priority)
	case BridgeSTP:
		return oneIf(b.STP)
	case BridgeSnooping:
		return oneIf(b.Snooping)
	}
	return 0
}

// Setting returns a parameter in the unit of PortSetting. The priority is the
// upper six bits of the port's ID.
func (p BridgePort) Setting(setting PortSetting) uint32 {
	switch setting {
	case PortPriority:
		return uint32(p.ID >> 10)
	case PortCost:
		return p.Cost
	case PortHairpin:
		return oneIf(p.Hairpin)
	}
	return 0
}

func oneIf(on bool) uint32 {
	if on {
		return 1
	}
	return 0
}
