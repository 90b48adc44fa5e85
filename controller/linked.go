package controller

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// Linked is a link of a container on the default bridge, with what it leads to.
type Linked struct {
	Target     linkspan.ID
	TargetName string     // the target's own name
	Name       string     // the name that the link gives it: web/db
	Addr       netip.Addr // of the target on the default bridge; zero: it does not run
}

// Linked returns the links of a container, in the order in which they were asked
// for. Those to containers that are gone are left out.
func (c *Controller) Linked(owner linkspan.ID) (all []Linked) {
	c.o.Store.View(func(t store.Tables) {
		cfg, _ := t.Configs.Get(owner)
		for _, l := range cfg.Value.Links {
			target, there := t.Configs.Get(l.Target)
			if !there {
				continue
			}
			found := Linked{Target: l.Target, TargetName: target.Value.Name, Name: cfg.Value.Name + "/" + l.Alias}
			if addrs := defaultAddrs(t, l.Target); len(addrs) > 0 {
				found.Addr = addrs[0]
			}
			all = append(all, found)
		}
	})
	return all
}

// defaultAddrs are the addresses of a live container on the default bridge.
func defaultAddrs(t store.Tables, owner linkspan.ID) (addrs []netip.Addr) {
	live, ok := sandboxOf(t, owner)
	if !ok || live.Phase == store.Deleting {
		return nil
	}
	for _, l := range linksOf(t, live.Value.ID) {
		if network.Predefined(l.network.Name) {
			addrs = append(addrs, l.endpoint.Addrs()...)
		}
	}
	return addrs
}

// LinkNames returns the names that links of others give a container (web/db), in
// order.
func (c *Controller) LinkNames(target linkspan.ID) (names []string) {
	c.o.Store.View(func(t store.Tables) {
		for _, linker := range t.By.ConfigsByLink.All(target) {
			for _, l := range linker.Value.Links {
				if l.Target == target {
					names = append(names, linker.Value.Name+"/"+l.Alias)
				}
			}
		}
	})
	slices.Sort(names)
	return names
}

// LinkTarget returns the container that a link's name (web/db) leads to.
func (c *Controller) LinkTarget(name string) (target linkspan.ID, found bool) {
	c.o.Store.View(func(t store.Tables) {
		_, l, err := findLink(t, name)
		target, found = l.Target, err == nil
	})
	return target, found
}

// Unlink takes one link from the container that has it, by the name that it gives
// its target: web/db.
func (c *Controller) Unlink(name string) error {
	var owner, target linkspan.ID
	err := c.o.Store.Update(func(t store.Tables) error {
		row, l, err := findLink(t, name)
		if err != nil {
			return err
		}
		owner, target = row.Value.Owner, l.Target
		row.Value.Links = slices.DeleteFunc(slices.Clone(row.Value.Links), func(other store.Link) bool { return other == l })
		t.Configs.Put(owner, row)
		return nil
	})
	if err != nil {
		return err
	}
	c.refresh(owner)
	if !c.live(target) {
		return nil
	}
	return c.followPorts(c.life, target)
}

// findLink finds who has a link, and the link, by its name.
func findLink(t store.Tables, name string) (store.Row[store.Config], store.Link, error) {
	owner, alias, isLink := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !isLink {
		return store.Row[store.Config]{}, store.Link{}, linkspan.Errorf(errUnexpected, "Conflict, cannot remove the default link name of the container: %s (its links: linkspan ps --no-trunc)", name)
	}
	row, known := t.By.ConfigsByName.First(owner)
	if !known {
		return row, store.Link{}, linkspan.Errorf(errUnexpected, "Cannot get parent /%s for link name /%s/%s", owner, owner, alias)
	}
	i := slices.IndexFunc(row.Value.Links, func(l store.Link) bool { return l.Alias == alias })
	if i < 0 {
		return row, store.Link{}, linkspan.Errorf(linkspan.ErrNotFound, "No such container: %s", name)
	}
	return row, row.Value.Links[i], nil
}
