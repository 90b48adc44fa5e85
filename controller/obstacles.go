package controller

import (
	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/firewall/choice"
)

// obstacles judges rules of others: with the bridges' names it can be told
// whether a packet from or to one of them passes, which a policy alone does not
// say. Rules of ours in the same chain let it pass, too. What was seen of policies
// is forgotten then.
func (c *Controller) obstacles(seen *doctor.Observation) []doctor.Finding {
	var four, six []string
	for _, n := range c.Networks() {
		driver, err := c.driver(n.Driver)
		if err != nil {
			continue
		}
		filtered, is := driver.(drivers.Filtered)
		if !is || n.Internal || n.ConfigOnly {
			continue
		}
		rules, err := filtered.Rules(n)
		if err == nil && n.IPv4 {
			four = append(four, rules.Bridge)
		}
		if err == nil && n.IPv6 {
			six = append(six, rules.Bridge)
		}
	}
	stopping, err := choice.Obstacles(c.o.Host, four, six)
	if err != nil || len(four)+len(six) == 0 {
		c.note("looking for rules of others", err)
		return nil
	}
	seen.DropPolicies = nil // said better below
	var found []doctor.Finding
	for _, o := range stopping {
		found = append(found, doctor.Finding{
			Reason: doctor.ReasonDropPolicy, Severity: doctor.Broken,
			What:   o.Chain + ", somebody else's, stops packets from or to networks: " + o.Rule + " (see: " + o.Show + ")",
			So:     "containers reach nothing beyond their own network, and nothing reaches them: an accept of ours does not end what another chain drops",
			Remedy: o.Remedy,
		})
	}
	return found
}
