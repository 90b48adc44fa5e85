package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// Table is one of the tables by which a tunnel device finds a station.
type Table uint8

// The tables, and the commands that show them.
const (
	Tunnels    Table = iota // which MAC is at the far end of which tunnel: bridge fdb show dev LINK self
	Ports                   // which MACs the bridge sends to the device: bridge fdb show dev LINK master
	Neighbours              // which address has which MAC: ip neigh show dev LINK
)

// Station is an entry of a table.
type Station struct {
	Table Table
	MAC   string
	Addr  netip.Addr // Tunnels: the far end; Neighbours: the station's address

	// Odd says that the entry is not one that somebody set to stay as it is: it
	// ages, or does more than its fields say.
	Odd bool
}

// StationReport is one change of a table.
type StationReport struct {
	Link int // index of the tunnel device
	Station
	Gone bool
	Lost bool // reports were lost; nothing else is filled in
}

// Stations reads the tables of a tunnel device of the machine's own namespace,
// by its index: two requests, for which the kernel picks the entries of the one
// device. Entries that the kernel makes for itself are left out.
func (h *Host) Stations(link int) ([]Station, error) {
	bridge := make([]byte, unix.SizeofNdMsg)
	bridge[0] = unix.AF_BRIDGE
	nlenc.PutInt32(bridge[4:8], int32(link))
	attributes := netlink.NewAttributeEncoder()
	attributes.Uint32(unix.NDA_IFINDEX, uint32(link))
	filter, err := attributes.Encode()
	if err != nil {
		return nil, err
	}
	var stations []Station
	for _, body := range [][]byte{bridge, append(make([]byte, unix.SizeofNdMsg), filter...)} {
		found, err := Dump(func() ([]Station, error) { return h.stations(link, body) })
		if err != nil {
			return nil, fmt.Errorf("listing the stations that link %d knows (see: bridge fdb; ip neigh): %w", link, err)
		}
		stations = append(stations, found...)
	}
	return stations, nil
}

func (h *Host) stations(link int, body []byte) ([]Station, error) {
	replies, err := h.sendStrict(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request | netlink.Dump}, Data: body,
	})
	if err != nil {
		return nil, err
	}
	var stations []Station
	for _, reply := range replies {
		index, station, what, err := readStation(reply.Data)
		if err != nil {
			return nil, err
		}
		if what == entry && index == link {
			stations = append(stations, station)
		}
	}
	return stations, nil
}

// Station looks one entry up: by its MAC or, among neighbours, its address. One
// that is not there is an error of which IsGone is true.
func (h *Host) Station(link int, want Station) (Station, error) {
	key := Station{Table: want.Table, MAC: want.MAC}
	if want.Table == Neighbours {
		key = Station{Table: Neighbours, Addr: want.Addr}
	}
	body, err := key.message(link)
	if err != nil {
		return Station{}, err
	}
	body[8], body[9] = 0, 0 // strict: no state in a question
	replies, err := h.sendStrict(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNEIGH, Flags: netlink.Request}, Data: body,
	})
	if err != nil {
		return Station{}, err
	}
	for _, reply := range replies {
		if _, station, what, err := readStation(reply.Data); what == entry || err != nil {
			return station, err
		}
	}
	return Station{}, unix.ENOENT
}

// SetStation puts an entry in the place of one with the same MAC or, among
// neighbours, the same address.
func (h *Host) SetStation(link int, s Station) error {
	return h.changeStation(unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace, link, s)
}

// DropStation removes an entry. With no Addr, all tunnels of a MAC are removed;
// a neighbour's MAC is not compared. One that is not there is an error of which
// IsGone is true.
func (h *Host) DropStation(link int, s Station) error {
	return h.changeStation(unix.RTM_DELNEIGH, 0, link, s)
}

func (h *Host) changeStation(kind netlink.HeaderType, flags netlink.HeaderFlags, link int, s Station) error {
	body, err := s.message(link)
	if err != nil {
		return err
	}
	_, err = h.send("", netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge | flags}, Data: body})
	return err
}

// message encodes an entry (rtnetlink(7), struct ndmsg) as one that stays.
func (s Station) message(link int) ([]byte, error) {
	body := make([]byte, unix.SizeofNdMsg)
	nlenc.PutInt32(body[4:8], int32(link))
	state := uint16(unix.NUD_PERMANENT)
	switch s.Table {
	case Tunnels:
		body[0], body[10] = unix.AF_BRIDGE, unix.NTF_SELF
	case Ports: // permanent would be the port's own address
		body[0], body[10], state = unix.AF_BRIDGE, unix.NTF_MASTER, unix.NUD_NOARP|unix.NUD_REACHABLE
	case Neighbours:
		body[0] = unix.AF_INET
		if s.Addr.Is6() {
			body[0] = unix.AF_INET6
		}
	}
	nlenc.PutUint16(body[8:10], state)
	attributes := netlink.NewAttributeEncoder()
	if s.Addr.IsValid() {
		attributes.Bytes(unix.NDA_DST, s.Addr.AsSlice())
	}
	if s.MAC != "" {
		mac, err := net.ParseMAC(s.MAC)
		if err != nil {
			return nil, err
		}
		attributes.Bytes(unix.NDA_LLADDR, mac)
	}
	encoded, err := attributes.Encode()
	return append(body, encoded...), err
}

// FollowStations calls report for each change of a station of any link in the
// machine's own namespace, whoever made it (bridge monitor fdb; ip monitor neigh),
// until ctx ends.
func (h *Host) FollowStations(ctx context.Context, report func(StationReport)) error {
	fd, err := h.FD("")
	if err != nil {
		return err
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: fd})
	if err != nil {
		return fmt.Errorf("opening a netlink socket: %w", err)
	}
	defer conn.Close()
	if err := errors.Join(conn.JoinGroup(unix.RTNLGRP_NEIGH), conn.SetReadBuffer(4<<20)); err != nil {
		return fmt.Errorf("subscribing to changes of stations: %w", err)
	}
	report(StationReport{Lost: true})                                           // what was before
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) }) //nolint:errcheck // closed below all the same
	defer stop()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			report(StationReport{Lost: true})
		case err != nil:
			return fmt.Errorf("reading changes of stations: %w", err)
		}
		for _, m := range messages {
			link, station, what, err := readStation(m.Data)
			if err == nil && what != other {
				report(StationReport{Link: link, Station: station, Gone: what == ghost || m.Header.Type == unix.RTM_DELNEIGH})
			}
		}
	}
}

// sendStrict is send with the kernel's promise to heed every word of the
// request (NETLINK_GET_STRICT_CHK), filters of dumps among them.
func (h *Host) sendStrict(request netlink.Message) ([]netlink.Message, error) {
	fd, err := h.FD("")
	if err != nil {
		return nil, err
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: fd, Strict: true})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Execute(request)
}

// What a message of the kernel is about.
type stationKind int

const (
	entry stationKind = iota // one that somebody may have set
	ghost                    // what is left of one that was removed: the kernel keeps neighbours for a while
	other                    // one that the kernel made for itself
)

// readStation reads a neighbour message (rtnetlink(7), struct ndmsg).
func readStation(data []byte) (link int, station Station, what stationKind, err error) {
	if len(data) < unix.SizeofNdMsg {
		return 0, station, other, fmt.Errorf("a message of %d bytes is too short for a neighbour", len(data))
	}
	link = int(int32(nlenc.Uint32(data[4:8])))
	family, state, flags := data[0], nlenc.Uint16(data[8:10]), data[10]
	attributes, err := netlink.NewAttributeDecoder(data[unix.SizeofNdMsg:])
	if err != nil {
		return 0, station, other, err
	}
	more := false
	for attributes.Next() {
		switch attributes.Type() {
		case unix.NDA_DST:
			station.Addr, _ = netip.AddrFromSlice(attributes.Bytes())
		case unix.NDA_LLADDR:
			station.MAC = net.HardwareAddr(attributes.Bytes()).String()
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX, nextHop:
			more = true
		}
	}
	const usable = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT
	what = other
	switch {
	case family == unix.AF_BRIDGE && flags&unix.NTF_SELF != 0:
		station.Table, station.Odd = Tunnels, more || state&unix.NUD_PERMANENT == 0
		if station.Addr.IsValid() || more {
			what = entry
		}
	case family == unix.AF_BRIDGE:
		station.Table, station.Odd = Ports, state&unix.NUD_NOARP == 0
		if state&unix.NUD_PERMANENT == 0 { // else the port's own
			what = entry
		}
	case family == unix.AF_INET || family == unix.AF_INET6:
		station.Table, station.Odd = Neighbours, state&unix.NUD_PERMANENT == 0
		switch {
		case flags&unix.NTF_PROXY != 0, state&unix.NUD_NOARP != 0:
		case state&usable != 0:
			what = entry
		default:
			what = ghost
		}
	}
	return link, station, what, attributes.Err()
}

// nextHop is NDA_NH_ID of <linux/neighbour.h>.
const nextHop = 13
