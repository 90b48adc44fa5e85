package controller

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// publishing is a change of wishes that wants more published.
func publishing(wishes []sandbox.Wish) func(*store.Config) error {
	return func(cfg *store.Config) error {
		if err := canPublish(*cfg); err != nil {
			return err
		}
		cfg.Ports = mergeWishes(slices.Concat(cfg.Ports, wishes))
		return nil
	}
}

// unpublishing is one that wants less.
func unpublishing(wishes []sandbox.Wish) func(*store.Config) error {
	return func(cfg *store.Config) error {
		for _, w := range wishes {
			left := slices.DeleteFunc(spellOut(cfg.Ports), func(one sandbox.Wish) bool { return covers(w, one) })
			if len(left) == len(spellOut(cfg.Ports)) {
				return linkspan.Errorf(linkspan.ErrNotFound, "port %d/%s of container %s is not published (see: linkspan port %s)", w.Port, w.Protocol, cfg.Name, cfg.Name)
			}
			cfg.Ports = mergeWishes(left)
		}
		return nil
	}
}

// Publish publishes further ports of a container: at once if it runs, and
// whenever it starts. Conversations under way go on. It returns what is
// published then.
func (c *Controller) Publish(ctx context.Context, owner linkspan.ID, wishes []sandbox.Wish) ([]sandbox.Port, error) {
	return c.changeWishes(ctx, owner, publishing(wishes))
}

// Unpublish takes published ports back. What a wish leaves open (the host's
// address or port) matches any.
func (c *Controller) Unpublish(ctx context.Context, owner linkspan.ID, wishes []sandbox.Wish) ([]sandbox.Port, error) {
	return c.changeWishes(ctx, owner, unpublishing(wishes))
}

func canPublish(cfg store.Config) error {
	if cfg.Mode == "host" || cfg.Mode == "none" || strings.HasPrefix(cfg.Mode, "container:") {
		return linkspan.Errorf(linkspan.ErrInvalid, "container %s has network mode %s: it has no ports to publish", cfg.Name, cfg.Mode)
	}
	return nil
}

// changeWishes changes what a container wants published, and follows. If that
// fails, everything is as it was.
func (c *Controller) changeWishes(ctx context.Context, owner linkspan.ID, change func(*store.Config) error) ([]sandbox.Port, error) {
	var before []sandbox.Wish
	running := false
	put := func(change func(*store.Config) error) error {
		return c.o.Store.Update(func(t store.Tables) error {
			row, ok := t.Configs.Get(owner)
			if !ok {
				return noContainer(owner)
			}
			before = row.Value.Ports
			if err := change(&row.Value); err != nil {
				return err
			}
			t.Configs.Put(owner, row)
			live, found := sandboxOf(t, owner)
			running = found && live.Phase == store.Ready
			return nil
		})
	}
	if err := put(change); err != nil {
		return nil, err
	}
	if running {
		was := before
		if err := c.followPorts(ctx, owner); err != nil {
			err = errors.Join(err, put(func(cfg *store.Config) error {
				cfg.Ports = was
				return nil
			}))
			return nil, errors.Join(err, c.followPorts(context.WithoutCancel(ctx), owner))
		}
	}
	return c.Published(owner), nil
}

// Published returns what is published of a running container.
func (c *Controller) Published(owner linkspan.ID) (ports []sandbox.Port) {
	c.o.Store.View(func(t store.Tables) {
		if live, ok := sandboxOf(t, owner); ok {
			row, _ := t.Ports.Get(live.Value.ID)
			ports = slices.Clone(row.Value.Ports)
		}
	})
	return ports
}

// spellOut makes a wish of each port.
func spellOut(wishes []sandbox.Wish) []sandbox.Wish {
	var all []sandbox.Wish
	for _, w := range wishes {
		for i := range w.Count {
			one := w
			one.Port, one.Count = w.Port+i, 1
			if w.Count > 1 {
				one.First, one.Last = w.First+i, w.First+i
			}
			all = append(all, one)
		}
	}
	return all
}

// covers tells whether w means the single port one.
func covers(w, one sandbox.Wish) bool {
	at := int(one.Port) - int(w.Port)
	return w.Protocol == one.Protocol && at >= 0 && at < int(w.Count) &&
		(!w.Host.IsValid() || w.Host == one.Host || w.Host.IsUnspecified() && !one.Host.IsValid()) &&
		(w.First == 0 || w.Count == 1 && w.First <= one.First && one.Last <= w.Last || w.Count > 1 && one.First == w.First+uint16(at))
}

// Reach says from where a published port can be reached.
type Reach struct {
	Loopback   bool           // from the host, by 127.0.0.1 or ::1
	Host       bool           // from the host, by the address that it is published at
	Containers bool           // from containers of whatever network, its own included
	Others     bool           // from other machines
	Sources    []netip.Prefix // if not empty, only these among containers and other machines
}

// ReachOf computes it from the record.
func ReachOf(p sandbox.Port) Reach {
	loop := p.Host.IsLoopback()
	world := !loop || p.Routed
	return Reach{
		Loopback: !p.Routed && (loop || p.Host.IsUnspecified()), Host: world, Containers: world, Others: world, Sources: p.Sources,
	}
}

// String says it in words.
func (r Reach) String() string {
	words := "this host"
	if !r.Others {
		return words + " only"
	}
	if len(r.Sources) == 0 {
		return words + ", containers, other machines"
	}
	for _, source := range r.Sources {
		words += ", " + source.String()
	}
	return words
}

// PublishedPort is a published port and whose it is.
type PublishedPort struct {
	Container linkspan.ID
	Name      string
	sandbox.Port
}

// AllPublished returns what is published of all running containers, by port of
// the host.
func (c *Controller) AllPublished() []PublishedPort {
	var all []PublishedPort
	c.o.Store.View(func(t store.Tables) {
		for id, row := range t.Ports.All() {
			live, _ := t.Sandboxes.Get(id)
			config, _ := t.Configs.Get(live.Value.Owner)
			for _, p := range row.Value.Ports {
				all = append(all, PublishedPort{live.Value.Owner, config.Value.Name, p})
			}
		}
	})
	slices.SortFunc(all, func(a, b PublishedPort) int {
		return cmp.Or(cmp.Compare(a.First, b.First), strings.Compare(a.Protocol, b.Protocol), a.Host.Compare(b.Host), strings.Compare(a.Name, b.Name))
	})
	return all
}
