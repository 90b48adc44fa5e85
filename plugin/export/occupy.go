package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/sandbox"
)

// portWish is a port of an endpoint's that is to be published at one port of the
// host's, at all of the addresses.
type portWish struct {
	protocol    string
	port        uint16
	first, last uint16 // of the host's ports one; zero: any
	at          []netip.Addr
	to          map[netip.Addr]netip.Addr // the endpoint's address, by the host's
}

// occupy chooses ports of the host's and holds them, so that no other program can
// have them: all, or none. The caller holds x.publishing.
func (x *Exporter) occupy(e endpoint.Endpoint, wishes []portWish) (ports []sandbox.Port, sockets kernel.Sockets, err error) {
	for _, w := range wishes {
		chosen, held, err := x.occupyOne(e, w)
		if err != nil {
			sockets.Close()
			return nil, nil, err
		}
		ports, sockets = append(ports, chosen...), append(sockets, held...)
	}
	return ports, sockets, nil
}

func (x *Exporter) occupyOne(e endpoint.Endpoint, w portWish) ([]sandbox.Port, kernel.Sockets, error) {
	first, last, start := w.first, w.last, 0
	reserved := func(uint16) bool { return false }
	if first == 0 {
		var err error
		if first, last, reserved, err = x.Host.PortRange(); err != nil {
			return nil, nil, err
		}
		h := fnv.New32a()
		fmt.Fprintf(h, "%s %d/%s", e.ID, w.port, w.protocol)
		start = int(h.Sum32() % (uint32(last-first) + 1))
	}
	var blame error
	count := int(last-first) + 1
	for i := range count {
		number := first + uint16((start+i)%count)
		if reserved(number) {
			continue
		}
		var ports []sandbox.Port
		for _, host := range w.at {
			ports = append(ports, sandbox.Port{Protocol: w.protocol, Host: host, First: number, Count: 1, To: netip.AddrPortFrom(w.to[host], w.port)})
		}
		if blame = x.checkPorts(ports); blame != nil {
			continue
		}
		sockets, err := x.Host.HoldPorts(holdsOf(ports))
		if err == nil {
			if w.first != w.last || w.first == 0 {
				x.Logf("port %d/%s of endpoint %s is published at port %d", w.port, w.protocol, e.ID.Short(), number)
			}
			return ports, sockets, nil
		}
		blame = err
		if taken := (*kernel.PortError)(nil); !errors.As(err, &taken) || !taken.Taken {
			return nil, nil, err
		}
	}
	if count > 1 {
		blame = fmt.Errorf("all ports are allocated: none of %d-%d is free: %w", first, last, blame)
	}
	return nil, nil, blame
}

func holdsOf(ports []sandbox.Port) []kernel.Hold {
	var holds []kernel.Hold
	for _, p := range ports {
		holds = append(holds, kernel.Hold{Protocol: p.Protocol, At: netip.AddrPortFrom(p.Host, p.First)})
	}
	return holds
}

// wishesOf reads the port map of a request.
func wishesOf(options map[string]any, e endpoint.Endpoint) ([]portWish, error) {
	raw, err := json.Marshal(options[wire.OptionPortMap])
	if err != nil {
		return nil, err
	}
	var bindings []wire.PortBinding
	if err := json.Unmarshal(raw, &bindings); err != nil {
		return nil, fmt.Errorf("option %s: %w", wire.OptionPortMap, err)
	}
	var wishes []portWish
	for _, b := range bindings {
		protocol, ok := map[int]string{6: sandbox.TCP, 17: sandbox.UDP, 132: sandbox.SCTP}[b.Proto]
		if !ok {
			return nil, fmt.Errorf("port %d: protocol %d cannot be published", b.Port, b.Proto)
		}
		host, err := netip.ParseAddr(b.HostIP)
		if b.HostIP == "" {
			host, err = netip.IPv4Unspecified(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("port %d: %w", b.Port, err)
		}
		to := e.IPv4.Addr()
		if host.Is6() {
			to = e.IPv6.Addr()
		}
		if !to.IsValid() {
			continue // the other family's
		}
		w := portWish{protocol: protocol, port: b.Port, first: b.HostPort, last: max(b.HostPort, b.HostPortEnd), at: []netip.Addr{host}, to: map[netip.Addr]netip.Addr{host: to}}
		// One that is published at any port has the same one in both families.
		if last := len(wishes) - 1; last >= 0 && wishes[last].port == w.port && wishes[last].protocol == w.protocol && wishes[last].first == w.first && !wishes[last].to[host].IsValid() {
			wishes[last].at = append(wishes[last].at, host)
			wishes[last].to[host] = to
			continue
		}
		wishes = append(wishes, w)
	}
	return wishes, nil
}
