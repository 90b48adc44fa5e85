package controller

import (
	"time"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/store"
)

// Container is what the controller needs to know of a container: its identity
// and the client's wishes, in the types of the Docker Engine API.
type Container struct {
	ID         linkspan.ID
	Name       string // without slash
	Created    time.Time
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *apinetwork.NetworkingConfig
}

// Reserve records what a new container wants of its networks. Networks need
// not exist yet; what is wrong in itself is refused here.
func (c *Controller) Reserve(ctr Container) error {
	cfg, err := c.configOf(ctr)
	if err != nil {
		return err
	}
	err = c.o.Store.Update(func(t store.Tables) error {
		if cfg.Links, err = resolveLinks(t, ctr, cfg); err != nil {
			return err
		}
		for i := range cfg.Attachments {
			row, missing := findNetwork(t, cfg.Attachments[i].Network)
			if missing != nil {
				continue // it may be made before the container starts
			}
			cfg.Attachments[i].NetworkID = row.Value.ID
			if err := checkSubnets(cfg.Attachments[i], row.Value); err != nil {
				return invalidFor(row.Value.Name, err)
			}
		}
		t.Configs.Put(cfg.Owner, store.Row[store.Config]{Value: cfg, Phase: store.Ready})
		return nil
	})
	if err == nil && hasStatic(cfg) {
		c.followHolds(c.life)
	}
	return err
}

// Rename follows the new name of a container: in names from now on, and in
// refusals.
func (c *Controller) Rename(owner linkspan.ID, name string) error {
	err := c.o.Store.Update(func(t store.Tables) error {
		row, ok := t.Configs.Get(owner)
		if !ok {
			return noContainer(owner)
		}
		row.Value.Name = name
		t.Configs.Put(owner, row)
		for id, ep := range t.By.EndpointsByOwner.All(owner) {
			n, _ := t.Networks.Get(ep.Value.Network)
			if ofGateway(n.Value) {
				continue // named after the sandbox
			}
			ep.Value.Name = name
			ep.Value.DNSNames = c.dnsNames(row.Value, n.Value, ep.Value.Config)
			t.Endpoints.Put(id, ep)
		}
		return nil
	})
	if err == nil {
		c.announceNames(owner)
		c.refreshLinkers(owner)
		c.renameShared(owner)
	}
	return err
}

// Forget drops what a removed container wanted: its static addresses are free.
func (c *Controller) Forget(owner linkspan.ID) error {
	c.release(c.life, owner)
	return c.o.Store.Update(func(t store.Tables) error {
		t.Configs.Delete(owner)
		return nil
	})
}

func noContainer(id linkspan.ID) error {
	return linkspan.Errorf(linkspan.ErrNotFound, "No such container: %s", id)
}

// configOf reads the client's wishes. It is pure.
func (c *Controller) configOf(ctr Container) (store.Config, error) {
	hc := ctr.HostConfig
	cfg := store.Config{
		Owner: ctr.ID, Name: ctr.Name, Created: ctr.Created, Volatile: hc.AutoRemove,
		Mode: modeOf(hc.NetworkMode), Hostname: ctr.Config.Hostname, Domainname: ctr.Config.Domainname,
		Search: hc.DNSSearch, Options: hc.DNSOptions, ExtraHosts: hc.ExtraHosts, Labels: ctr.Config.Labels,
	}
	for _, server := range hc.DNS {
		cfg.Servers = append(cfg.Servers, server.String())
	}
	cfg.NoIPv6 = hc.Sysctls["net.ipv6.conf.all.disable_ipv6"] == "1" || hc.Sysctls["net.ipv6.conf.lo.disable_ipv6"] == "1"
	if err := c.checkWishes(ctr); err != nil {
		return cfg, err
	}
	var err error
	if cfg.Ports, cfg.Exposed, err = wishesOf(ctr); err != nil {
		return cfg, err
	}
	if stackless(c.traitsOf(cfg.Mode)) || ctr.Config.NetworkDisabled {
		return cfg, nil
	}
	wanted := make(map[string]*apinetwork.EndpointSettings)
	if ctr.Networking != nil {
		for name, settings := range ctr.Networking.EndpointsConfig {
			wanted[modeOf(container.NetworkMode(name))] = settings
		}
	}
	// Who names networks and leaves the mode alone wants those, and not the
	// default network besides.
	if _, given := wanted[cfg.Mode]; !given && (len(wanted) == 0 || cfg.Mode != "bridge") {
		wanted[cfg.Mode] = nil
	}
	if _, given := wanted["bridge"]; given && c.o.Defaults.NoBridge {
		delete(wanted, "bridge") // as if it had no network at all
	}
	for _, name := range attachmentOrder(cfg.Mode, wanted) {
		want, err := endpointConfig(name, wanted[name])
		if err != nil {
			return cfg, invalidFor(name, err)
		}
		cfg.Attachments = append(cfg.Attachments, want)
	}
	return cfg, nil
}

func modeOf(mode container.NetworkMode) string {
	if mode == "" || mode.IsDefault() {
		return "bridge"
	}
	return string(mode)
}
