package op

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/linkspan/linkspan/kernel"
)

// AddCable makes a pair of links, each end straight in its namespace. Either
// namespace takes the pair along when it goes; that is how it is undone.
type AddCable struct {
	NS      string
	Name    string
	MAC     string
	PeerNS  string
	Peer    string
	PeerMAC string
	MTU     int `json:",omitempty"` // bytes, of both ends; 0: 1500
}

// Do makes the pair, down at both ends.
func (o AddCable) Do(_ context.Context, h *kernel.Host) error {
	links, err := h.Links(o.NS)
	if err != nil {
		return err
	}
	attrs, err := linkAttrs(o.Name, o.MAC, o.MTU)
	if err != nil {
		return err
	}
	peerMAC, err := net.ParseMAC(o.PeerMAC)
	if err != nil {
		return fmt.Errorf("adding link %s: %w", o.Peer, err)
	}
	fd, err := h.FD(o.PeerNS)
	if err != nil {
		return err
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = o.Peer, peerMAC, netlink.NsFd(fd)
	veth.PeerMTU = uint32(o.MTU)
	return adding("cable", o.Name, o.NS, links.LinkAdd(veth))
}

// Undo does nothing: the pair lives and dies with its namespaces.
func (o AddCable) Undo(context.Context, *kernel.Host) error { return nil }

// Check finds both ends.
func (o AddCable) Check(_ context.Context, h *kernel.Host) error {
	near, err := find(h, o.NS, o.Name)
	if err != nil {
		return err
	}
	far, err := find(h, o.PeerNS, o.Peer)
	if err != nil {
		return err
	}
	return errors.Join(
		checkMAC(o.NS, near, o.MAC), checkMTU(o.NS, near, o.MTU),
		checkMAC(o.PeerNS, far, o.PeerMAC), checkMTU(o.PeerNS, far, o.MTU))
}

func (o AddCable) String() string {
	command := fmt.Sprintf("%s link add name %s address %s%s type veth peer name %s address %s%s",
		ipIn(o.NS), quote(o.Name), o.MAC, mtuWords(o.MTU), quote(o.Peer), o.PeerMAC, mtuWords(o.MTU))
	if o.PeerNS != o.NS {
		command += " netns " + quote(o.PeerNS)
	}
	return command
}
