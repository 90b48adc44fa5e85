package lab

import (
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/op"
)

// impair makes the i-th link as bad as is wanted, each way. With netem it is one
// queueing discipline at each end. Without, a rate is a token bucket there, and
// losses are nftables' at the end where a frame arrives; a delay cannot be had.
func (f File) impair(i int, bad Impairment, netem bool) (op.Plan, error) {
	if bad.Delay != 0 && !netem {
		return nil, linkspan.Errorf(linkspan.ErrUnsupported, "link %s: delay %s: this kernel lacks the queueing discipline netem, CONFIG_NET_SCH_NETEM (see: modinfo sch_netem); a rate and losses it can do", f.Links[i], bad.Delay)
	}
	var plan op.Plan
	for j := range f.Links[i].Ends {
		ns, link := f.at(i, j)
		switch {
		case bad == Impairment{}:
		case netem:
			plan = append(plan, op.Step{Why: "The cable is bad: " + bad.String() + ".", Op: op.Netem{
				NS: ns, Link: link, Delay: time.Duration(bad.Delay), Loss: uint32(bad.Loss), Rate: uint64(bad.Rate),
			}})
		default:
			if bad.Rate != 0 {
				plan = append(plan, bucket(ns, link, bad.Rate, f.Links[i].MTU))
			}
			if bad.Loss != 0 {
				plan = append(plan, op.Step{Why: "The cable loses " + bad.Loss.String() + " of what arrives here.", Op: op.LoseFrames{NS: ns, Link: link, Loss: uint32(bad.Loss)}})
			}
		}
	}
	return plan, nil
}

// bucket is a limit of a rate. At once may leave what the rate gives in 10 ms, but
// at least two whole frames; 100 ms' worth may wait, but at least ten frames.
func bucket(ns, link string, rate Rate, mtu int) op.Step {
	const header = 18 // of Ethernet, with a VLAN's tag
	frame := uint64(max(mtu, 1500) + header)
	burst := max(uint64(rate)/8/100, 2*frame)
	return op.Step{Why: "The cable is slow: " + rate.String() + ".", Op: op.LimitRate{
		NS: ns, Link: link, Rate: uint64(rate), Burst: uint32(burst), Queue: uint32(burst + max(uint64(rate)/8/10, 10*frame)),
	}}
}

// impairs tells whether an op is one of those that impair makes for the i-th link.
func (f File) impairs(i int, o op.Op) bool {
	var at [2]string
	switch o := o.(type) {
	case op.Netem:
		at = [2]string{o.NS, o.Link}
	case op.LimitRate:
		at = [2]string{o.NS, o.Link}
	case op.LoseFrames:
		at = [2]string{o.NS, o.Link}
	default:
		return false
	}
	return f.hasEnd(i, at)
}

// hasEnd tells whether an interface, by namespace and name, is an end of the i-th link.
func (f File) hasEnd(i int, at [2]string) bool {
	for j := range f.Links[i].Ends {
		if ns, link := f.at(i, j); at == [2]string{ns, link} {
			return true
		}
	}
	return false
}
