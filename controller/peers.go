package controller

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/network"
)

// setPeers says which endpoints of a network are on other hosts, all of them.
// Errors are logged, and tried again.
func (c *Controller) setPeers(n network.Network, peers []drivers.Peer) {
	driver, err := c.driver(n.Driver)
	spanning, spans := driver.(drivers.Spanning)
	if err == nil && spans {
		err = c.peers.Set(c.life, n, spanning, peers)
	}
	c.note("telling network "+n.Name+" of other hosts", err)
}

// dropPeers forgets a network whose tunnel device has gone, and its entries with
// it.
func (c *Controller) dropPeers(id linkspan.ID) { c.peers.Drop(id) }

// peerFindings says which entries are wrong now, and how many were.
func (c *Controller) peerFindings() ([]doctor.Finding, error) {
	now, before, err := c.peers.Wrong()
	var found []doctor.Finding
	for _, name := range slices.Sorted(maps.Keys(now)) {
		for _, what := range now[name] {
			found = append(found, doctor.Finding{
				Reason: doctor.ReasonDiffers, Severity: doctor.Broken, Repairable: true,
				What:   fmt.Sprintf("network %s, entries for other hosts: %s", name, what),
				So:     "containers do not reach a container on another host, or not the right one; it is put right within seconds by itself",
				Remedy: "linkspan doctor --repair",
			})
		}
	}
	for _, r := range before {
		found = append(found, doctor.Finding{
			Reason: doctor.ReasonEntries, Severity: doctor.Note,
			What:   fmt.Sprintf("network %s: %d entries for other hosts were wrong since the daemon started and were put right, the last at %s: %s", r.Network, r.Count, r.Last.Format(time.RFC3339), r.Entry),
			So:     "somebody else changes the tables of its tunnel device, and meanwhile packets went astray",
			Remedy: "bridge monitor fdb; ip monitor neigh; the daemon's log has each of them",
		})
	}
	return found, err
}
