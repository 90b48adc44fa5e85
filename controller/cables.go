package controller

import (
	"sort"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// Cable is an endpoint as the kernel has it now: where it is plugged in at
// either end.
type Cable struct {
	Network   string // name
	Interface string // in the sandbox
	HostLink  string `json:",omitempty"` // the host's end; empty: the kind of network has none
	HostIndex int    `json:",omitempty"` // ifindex of the host's end; 0: it is missing
	Bridge    string `json:",omitempty"` // whose port the host's end is
	Port      int    `json:",omitempty"` // number of that port, as brctl showstp and bridge -d link say
}

// Cables returns the cables of a container, by interface. It has none unless it
// runs with a network stack of its own.
func (c *Controller) Cables(owner linkspan.ID) ([]Cable, error) {
	found := []Cable{}
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.By.EndpointsByOwner.All(owner) {
			n, _ := t.Networks.Get(row.Value.Network)
			found = append(found, Cable{Network: n.Value.Name, Interface: row.Value.Interface, HostLink: hostLink(row.Plan)})
		}
	})
	for i := range found {
		if found[i].HostLink == "" {
			continue
		}
		port, err := c.o.Host.Port(found[i].HostLink)
		if err != nil && !kernel.IsGone(err) {
			return nil, err
		}
		found[i].HostIndex, found[i].Bridge, found[i].Port = port.Index, port.Bridge, port.Number
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Interface < found[j].Interface })
	return found, nil
}

// hostLink is the link that an endpoint's plan makes on the host.
func hostLink(plan op.Plan) string {
	for _, step := range plan {
		if veth, ok := step.Op.(op.AddVeth); ok {
			return veth.Name
		}
	}
	return ""
}
