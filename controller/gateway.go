package controller

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sort"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// link is an endpoint beside its network.
type link struct {
	endpoint endpoint.Endpoint
	network  network.Network
}

// attachmentOrder is the order in which a new container is attached, and so the
// order of its interfaces: the network of its mode first, then by name.
func attachmentOrder(mode string, wanted map[string]*apinetwork.EndpointSettings) []string {
	names := slices.Sorted(maps.Keys(wanted))
	sort.SliceStable(names, func(i, j int) bool { return names[i] == mode && names[j] != mode })
	return names
}

// byPriority sorts links by the documented rule for the choice of gateways
// (docker network connect --gw-priority): higher priority, then not internal,
// then more gateway families, then the name of the network.
func byPriority(links []link) {
	internal := func(l link) int {
		if l.network.Internal {
			return 1
		}
		return 0
	}
	families := func(l link) int {
		n := 0
		for _, gateway := range []netip.Addr{l.endpoint.Gateway4, l.endpoint.Gateway6} {
			if gateway.IsValid() {
				n++
			}
		}
		return n
	}
	slices.SortFunc(links, func(a, b link) int {
		return cmp.Or(
			cmp.Compare(b.endpoint.Config.GwPriority, a.endpoint.Config.GwPriority),
			cmp.Compare(internal(a), internal(b)),
			cmp.Compare(families(b), families(a)),
			cmp.Compare(a.network.Name, b.network.Name),
		)
	})
}

// linksOf returns the links of a sandbox, by priority: those that it has, not
// those that are on their way in or out. A sandbox that is made now comes with
// all of them.
func linksOf(t store.Tables, id linkspan.ID) []link {
	whole, _ := t.Sandboxes.Get(id)
	var links []link
	for _, row := range t.By.EndpointsBySandbox.All(id) {
		if row.Phase == store.Ready || row.Phase == store.Creating && whole.Phase == store.Creating {
			n, _ := t.Networks.Get(row.Value.Network)
			links = append(links, link{row.Value, n.Value})
		}
	}
	byPriority(links)
	return links
}

// gateways picks the default routes of a sandbox from its links, which are
// sorted by priority, and plans them. The two families may leave by different
// endpoints.
func (c *Controller) gateways(s sandbox.Sandbox, links []link) (store.Gateways, op.Plan) {
	var picked store.Gateways
	var plan op.Plan
	for _, l := range links {
		e := l.endpoint
		if picked.IPv4 == "" && e.Gateway4.IsValid() {
			picked.IPv4 = e.ID
			plan = append(plan, defaultRoute(s, e, netip.IPv4Unspecified(), e.Gateway4, l.network.Name))
		}
		if picked.IPv6 == "" && e.Gateway6.IsValid() {
			picked.IPv6 = e.ID
			plan = append(plan, defaultRoute(s, e, netip.IPv6Unspecified(), e.Gateway6, l.network.Name))
		}
		if picked.IPv4 == e.ID || picked.IPv6 == e.ID {
			plan = append(plan, c.outward(s, l)...)
		}
	}
	return picked, plan
}

// outward plans what the driver of a link does when the way out is by it.
func (c *Controller) outward(s sandbox.Sandbox, l link) op.Plan {
	driver, err := c.driver(l.network.Driver)
	if asker, asks := driver.(drivers.Asker); err == nil && asks {
		return asker.Outward(l.network, l.endpoint, s)
	}
	return nil
}

func defaultRoute(s sandbox.Sandbox, e endpoint.Endpoint, to, via netip.Addr, name string) op.Step {
	return op.Step{
		Why: "What is not on a network of its own the container sends to the gateway of network " + name + ".",
		Op:  op.AddRoute{NS: s.Netns(), To: netip.PrefixFrom(to, 0), Via: via, Link: e.Interface},
	}
}
