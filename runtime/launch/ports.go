package launch

import (
	"errors"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/runtime/relay"
)

// ports are the sockets that hold the published ports of the container: as long
// as the shim has them, nobody else can bind those.
type ports struct {
	mu      sync.Mutex
	sockets map[portKey]int
	relay   *relay.Relay // made when first needed
	over    bool         // the container has ended
}

type portKey struct {
	protocol string
	at       netip.AddrPort
}

// hold takes over the fresh sockets, serves those that are to be served, and
// lets go of what is not wanted any more. On an error it has closed the fresh
// ones and changed nothing else.
func (p *ports) hold(h *Hold, fds []int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh, _, err := expand(h.Fresh)
	wanted, services, wrong := expand(h.Wanted)
	if err == nil && wrong == nil && len(fresh) != len(fds) {
		err = errors.New("sockets of published ports are missing")
	}
	if p.over {
		err = errors.New("the container has ended")
	}
	if err = errors.Join(err, wrong); err != nil {
		closeAll(fds)
		return err
	}
	if p.sockets == nil {
		p.sockets = make(map[portKey]int, len(fresh))
	}
	for i, key := range fresh {
		p.drop(key) // a daemon that died had handed one over already
		p.sockets[key] = fds[i]
	}
	keep := make(map[portKey]bool, len(wanted))
	for i, key := range wanted {
		keep[key] = true
		fd, held := p.sockets[key]
		switch {
		case held && services[i].To.IsValid():
			err = errors.Join(err, p.serve(fd, services[i]))
		case held && p.relay != nil:
			p.relay.Stop(fd)
		}
	}
	for key := range p.sockets {
		if !keep[key] {
			p.drop(key)
		}
	}
	return err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (p *ports) serve(fd int, s relay.Service) error {
	if p.relay == nil {
		var err error
		if p.relay, err = relay.New(); err != nil {
			return err
		}
	}
	return p.relay.Serve(fd, s)
}

func (p *ports) drop(key portKey) {
	fd, held := p.sockets[key]
	if !held {
		return
	}
	if p.relay != nil {
		p.relay.Stop(fd)
	}
	unix.Close(fd)
	delete(p.sockets, key)
}

// release lets go of everything: the container has ended.
func (p *ports) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	for _, fd := range p.sockets {
		unix.Close(fd) // which ends its service, too
	}
	p.sockets = nil
}

// list tells what is held.
func (p *ports) list() Holding {
	p.mu.Lock()
	defer p.mu.Unlock()
	var h Holding
	for key := range p.sockets {
		h.Ports = append(h.Ports, Port{Protocol: key.protocol, Host: key.at.Addr().String(), First: int(key.at.Port()), Count: 1})
	}
	return h
}

// expand spells rows of ports out. A service without To is none.
func expand(rows []Port) (keys []portKey, services []relay.Service, err error) {
	for i := range rows {
		row := &rows[i]
		host, err := netip.ParseAddr(row.Host)
		if err != nil || row.First < 1 || row.Count < 1 || row.First+row.Count-1 > 65535 {
			return nil, nil, errors.New("malformed published port")
		}
		var service relay.Service
		if row.Serve {
			if service, err = serviceOf(row); err != nil {
				return nil, nil, err
			}
		}
		for j := range row.Count {
			keys = append(keys, portKey{row.Protocol, netip.AddrPortFrom(host, uint16(row.First+j))})
			one := service
			if row.Serve {
				one.To = netip.AddrPortFrom(service.To.Addr(), service.To.Port()+uint16(j))
			}
			services = append(services, one)
		}
	}
	return keys, services, nil
}

func serviceOf(row *Port) (relay.Service, error) {
	to, err := netip.ParseAddrPort(row.To)
	if err != nil {
		return relay.Service{}, os.ErrInvalid
	}
	s := relay.Service{Datagrams: row.Protocol == "udp", To: to}
	for _, text := range row.Sources {
		source, err := netip.ParsePrefix(text)
		if err != nil {
			return relay.Service{}, os.ErrInvalid
		}
		s.Sources = append(s.Sources, source)
	}
	return s, nil
}

// hold changes what is held while the container runs.
func (s *shim) hold(conn *Conn, payload []byte) {
	var h Hold
	fds := conn.TakeFiles()
	err := Decode(payload, &h)
	if err == nil {
		err = s.ports.hold(&h, fds)
	} else {
		closeAll(fds)
	}
	if err != nil {
		conn.Send(Failed, Encode(&Status{Code: 128, Text: err.Error()}))
		return
	}
	conn.Send(OK, Encode(&Ack{}))
}
