package runtime

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/runtime/launch"
	"github.com/linkspan/linkspan/sandbox"
)

// Holding returns the ports of the host that the shim of a container holds.
func (r *Runtime) Holding(id linkspan.ID) ([]kernel.Hold, error) {
	conn, kind, payload, err := r.ask(Container{ID: id}, launch.ReqHeld, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var held launch.Holding
	if kind == launch.Held {
		err = launch.Decode(payload, &held)
	} else {
		err = errors.New("it does not know the question")
	}
	if err != nil {
		return nil, fmt.Errorf("hearing the shim of container %s: %w", id.Short(), err)
	}
	holds := make([]kernel.Hold, 0, len(held.Ports))
	for _, p := range held.Ports {
		host, err := netip.ParseAddr(p.Host)
		if err != nil {
			return nil, fmt.Errorf("hearing the shim of container %s: %w", id.Short(), err)
		}
		holds = append(holds, kernel.Hold{Protocol: p.Protocol, At: netip.AddrPortFrom(host, uint16(p.First))})
	}
	return holds, nil
}

// Hold makes the shim of a running container hold the wanted ports and no
// others. The sockets of the fresh ones are given in the same order; they
// remain the caller's.
func (r *Runtime) Hold(id linkspan.ID, wanted []sandbox.Port, fresh []kernel.Hold, sockets kernel.Sockets) error {
	message := launch.Hold{Wanted: launchPorts(wanted)}
	for _, h := range fresh {
		message.Fresh = append(message.Fresh, launch.Port{Protocol: h.Protocol, Host: h.At.Addr().String(), First: int(h.At.Port()), Count: 1})
	}
	conn, err := launch.Dial(r.execDir(id))
	if err != nil {
		return fmt.Errorf("connecting to the shim of container %s: %w", id.Short(), err)
	}
	defer conn.Close()
	if err = conn.SendFiles(sockets); err == nil {
		err = conn.Send(launch.ReqHold, launch.Encode(&message))
	}
	if err != nil {
		return fmt.Errorf("handing ports to the shim of container %s: %w", id.Short(), err)
	}
	kind, payload, err := conn.Receive()
	if err == nil && kind == launch.Failed {
		var status launch.Status
		if err = launch.Decode(payload, &status); err == nil {
			err = errors.New(status.Text)
		}
	}
	if err != nil {
		return fmt.Errorf("handing ports to the shim of container %s: %w", id.Short(), err)
	}
	return nil
}

// launchPorts puts published ports in the words of the shim, without those that
// take no port of the host.
func launchPorts(ports []sandbox.Port) []launch.Port {
	var rows []launch.Port
	for _, p := range ports {
		if p.Routed {
			continue
		}
		row := launch.Port{
			Protocol: p.Protocol, Host: p.Host.String(), First: int(p.First), Count: int(p.Count), To: p.To.String(), Serve: p.Served(),
		}
		for _, source := range p.Sources {
			row.Sources = append(row.Sources, source.String())
		}
		rows = append(rows, row)
	}
	return rows
}
