package controller

import (
	"fmt"

	"github.com/linkspan/linkspan/doctor"
)

// sharedFindings says what is wrong with what this host shares with others.
func (c *Controller) sharedFindings() []doctor.Finding {
	var found []doctor.Finding
	if c.o.Cluster == nil {
		return nil
	}
	if err := c.o.Cluster.Err(); err != nil {
		found = append(found, doctor.Finding{
			Reason: doctor.ReasonCluster, Severity: doctor.Warning,
			What:   fmt.Sprintf("the store that hosts share is away: %v", err),
			So:     "containers go on with what was known last; networks that span hosts cannot be made or removed, and new containers get addresses only while this host has some of its own",
			Remedy: "bring the store back, or this host's way to it (see: etcdctl endpoint status)",
		})
	}
	for _, s := range c.stranded() {
		found = append(found, doctor.Finding{
			Reason: doctor.ReasonStranded, Severity: doctor.Broken,
			What:   fmt.Sprintf("container %s is not on network %s, though it wants to be", s.name, s.network.Name),
			So:     "this host was cut off for so long that its address was given to somebody else: it was taken down",
			Remedy: fmt.Sprintf("linkspan restart %s", s.name),
		})
	}
	return found
}
