package controller

import (
	"path"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// Links of the default bridge (docker run --link) are older than names that a
// resolver answers: the addresses of the target stand in the hosts file of the
// container that asked. On users' networks --link is one more name at the
// resolver; see view.

// parseLink reads "container", "container:alias" or, as inspection shows it,
// "/container:/owner/alias".
func parseLink(text string) (target, alias string, err error) {
	target, alias, given := strings.Cut(text, ":")
	target = strings.TrimPrefix(target, "/")
	switch {
	case text == "":
		return "", "", linkspan.Errorf(linkspan.ErrInvalid, "empty string specified for links")
	case !given:
		alias = target
	case strings.HasPrefix(alias, "/"):
		alias = path.Base(alias)
	}
	odd := func(r rune) bool { return r <= ' ' || r == ':' || r == '#' || r == '/' || r == 0x7f }
	if target == "" || alias == "" || strings.ContainsFunc(target+alias, odd) {
		return "", "", linkspan.Errorf(linkspan.ErrInvalid, "bad format for links: %s", text)
	}
	return target, alias, nil
}

// resolveLinks finds the targets of a new container's links on the default
// bridge. They follow the targets when those are renamed.
func resolveLinks(t store.Tables, ctr Container, cfg store.Config) ([]store.Link, error) {
	if !network.Predefined(cfg.Mode) {
		return nil, nil
	}
	wanted := slices.Clone(ctr.HostConfig.Links)
	for _, a := range cfg.Attachments {
		if network.Predefined(a.Network) {
			wanted = append(wanted, a.Links...)
		}
	}
	var links []store.Link
	for _, text := range wanted {
		target, alias, err := parseLink(text)
		if err != nil {
			return nil, err
		}
		found, ok := findConfig(t, target)
		for borrowed := true; ok && borrowed; {
			var donor string
			if donor, borrowed = strings.CutPrefix(found.Mode, "container:"); borrowed {
				found, ok = findConfig(t, donor)
			}
		}
		if !ok {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "could not get container for %s: No such container: %s", target, target)
		}
		if found.Mode == "host" {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
		// A name is given once: the first keeps it.
		if !slices.ContainsFunc(links, func(l store.Link) bool { return l.Alias == alias }) {
			links = append(links, store.Link{Target: found.Owner, Alias: alias})
		}
	}
	return links, nil
}

// checkLinks refuses to start a container whose links lead nowhere.
func checkLinks(t store.Tables, cfg store.Config) error {
	for _, l := range cfg.Links {
		target, ok := t.Configs.Get(l.Target)
		if !ok {
			return linkspan.Errorf(linkspan.ErrNotFound, "No such container: %s (linked to as %s)", l.Target, l.Alias)
		}
		if live, ok := sandboxOf(t, l.Target); !ok || live.Phase != store.Ready {
			return linkspan.Errorf(linkspan.ErrConflict, "Cannot link to a non running container: /%s AS /%s/%s", target.Value.Name, cfg.Name, l.Alias)
		}
		if !onDefault(target.Value) {
			return linkspan.Errorf(linkspan.ErrConflict, "Cannot link to /%s, as it does not belong to the default network", target.Value.Name)
		}
	}
	return nil
}

func onDefault(cfg store.Config) bool {
	return slices.ContainsFunc(cfg.Attachments, func(a endpoint.Config) bool { return network.Predefined(a.Network) })
}

// linkLines are the lines that a container's links give its hosts file: those
// of targets that run.
func linkLines(t store.Tables, cfg store.Config) []dns.HostLine {
	var lines []dns.HostLine
	for _, l := range cfg.Links {
		target, _ := t.Configs.Get(l.Target)
		names := []string{l.Alias, hostnameOf(target.Value)}
		if l.Alias != target.Value.Name {
			names = append(names, target.Value.Name)
		}
		for _, addr := range defaultAddrs(t, l.Target) {
			lines = append(lines, dns.HostLine{Addr: addr, Names: names})
		}
	}
	return lines
}

// refreshLinkers brings the hosts files of those up to date that have a link to
// a container.
func (c *Controller) refreshLinkers(target linkspan.ID) {
	var linkers []linkspan.ID
	c.o.Store.View(func(t store.Tables) {
		cfg, ok := t.Configs.Get(target)
		if !ok || !onDefault(cfg.Value) {
			return
		}
		for owner := range t.By.ConfigsByLink.All(target) {
			linkers = append(linkers, owner)
		}
	})
	for _, owner := range linkers {
		c.refresh(owner)
	}
}
