package controller

import (
	"maps"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// NetworkChange is what a user wants to be different about a network. What is
// nil stays.
type NetworkChange struct {
	Options, Labels      map[string]*string // nil: without it
	IPv4, IPv6           *bool
	Internal, Attachable *bool
	Pools                []ipam.Pool // to add
}

// apply returns the network as it should be, but for its pools.
func (w NetworkChange) apply(n network.Network) network.Network {
	n.Options, n.Labels = changed(n.Options, w.Options), changed(n.Labels, w.Labels)
	for _, flag := range []struct {
		to   *bool
		flag *bool
	}{{w.IPv4, &n.IPv4}, {w.IPv6, &n.IPv6}, {w.Internal, &n.Internal}, {w.Attachable, &n.Attachable}} {
		if flag.to != nil {
			*flag.flag = *flag.to
		}
	}
	for _, pool := range w.Pools { // a subnet of a family switches it on
		if pool.Subnet.Addr().Is6() && w.IPv6 == nil {
			n.IPv6 = true
		}
		if pool.Subnet.Addr().Is4() && w.IPv4 == nil {
			n.IPv4 = true
		}
	}
	return n
}

func changed(values map[string]string, changes map[string]*string) map[string]string {
	if len(changes) == 0 {
		return values
	}
	fresh := maps.Clone(values)
	if fresh == nil {
		fresh = make(map[string]string, len(changes))
	}
	for key, value := range changes {
		if value == nil {
			delete(fresh, key)
		} else {
			fresh[key] = *value
		}
	}
	return fresh
}

// addPools chooses the pools that a network gets in addition: those given, and
// one for each family that is switched on without.
func (c *Controller) addPools(t store.Tables, old, fresh network.Network, given []ipam.Pool, traits drivers.Traits, taken []ipam.Holding) ([]ipam.Pool, error) {
	more := fresh
	more.Pools = given
	_, given4 := more.PoolOf(false)
	_, given6 := more.PoolOf(true)
	more.IPv4 = fresh.IPv4 && (given4 || !old.IPv4)
	more.IPv6 = fresh.IPv6 && (given6 || !old.IPv6)
	if !traits.Addresses || (!more.IPv4 && !more.IPv6) {
		return old.Pools, nil
	}
	pools, err := c.choosePools(t, more, traits, taken)
	return slices.Concat(old.Pools, pools), err
}

// checkOptions refuses malformed options that all drivers share.
func checkOptions(n network.Network) error {
	if _, err := dns.ParseRecords(n.Options[network.OptionRecords]); err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "option %s: %w", network.OptionRecords, err)
	}
	_, _, err := n.Announcements()
	return err
}

// checkChange refuses what cannot change in place.
func checkChange(driver drivers.Driver, old, fresh network.Network) error {
	if err := checkOptions(fresh); err != nil {
		return err
	}
	if (old.IPv4 && !fresh.IPv4) || (old.IPv6 && !fresh.IPv6) {
		return linkspan.Errorf(linkspan.ErrForbidden, "an address family of network %s cannot be switched off in place: containers have addresses of it", old.Name)
	}
	if changer, ok := driver.(drivers.Changer); ok {
		return changer.CheckChange(old, fresh)
	}
	return linkspan.Errorf(linkspan.ErrNotImplemented, "networks of driver %q cannot be changed in place, but for labels and --attachable", old.Driver)
}

// sameInKernel tells whether two versions of a network differ in their records
// alone.
func sameInKernel(old, fresh network.Network) bool {
	return old.IPv4 == fresh.IPv4 && old.IPv6 == fresh.IPv6 && old.Internal == fresh.Internal &&
		maps.Equal(old.Options, fresh.Options) && len(old.Pools) == len(fresh.Pools)
}
