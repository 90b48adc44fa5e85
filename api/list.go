package api

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime"
)

func (s *Server) listContainers(w http.ResponseWriter, r *http.Request) error {
	want, err := s.listing(r)
	if err != nil {
		return err
	}
	now, sized := s.now(), boolean(r, "size")
	list := []container.Summary{}
	for _, c := range s.containers.List() {
		if want.limit > 0 && len(list) == want.limit {
			break
		}
		if !want.all && !c.State.Active() || !want.record(c) {
			continue
		}
		summary := s.summary(c, now, versionOf(r))
		if !want.network(summary.NetworkSettings.Networks) || !want.ports(summary.Ports) {
			continue
		}
		if sized {
			if summary.SizeRw, summary.SizeRootFs, err = s.containers.Size(r.Context(), summary.ID, true); errors.Is(err, linkspan.ErrNotFound) {
				continue // it has gone since
			} else if err != nil {
				return err
			}
		}
		list = append(list, summary)
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

// listing is what a client wants to see of the containers.
type listing struct {
	filters
	all           bool
	limit         int
	before, since time.Time       // of creation; zero: no bound
	images        map[string]bool // by ID: those that were asked for as ancestors, and what was made of them
}

func (s *Server) listing(r *http.Request) (listing, error) {
	want := listing{all: boolean(r, "all")}
	var err error
	if want.limit, err = number(r, "limit", 0); err != nil {
		return want, err
	}
	if want.filters, err = filtersOf(r, "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation",
		"label", "name", "network", "publish", "since", "status", "volume"); err != nil {
		return want, err
	}
	for _, status := range want.filters["status"] {
		if err := container.ValidateContainerState(container.ContainerState(status)); err != nil {
			return want, linkspan.Errorf(linkspan.ErrInvalid, "invalid filter 'status=%s': %w", status, err)
		}
	}
	for _, health := range want.filters["health"] {
		if err := container.ValidateHealthStatus(container.HealthStatus(health)); err != nil {
			return want, linkspan.Errorf(linkspan.ErrInvalid, "invalid filter 'health=%s': %w", health, err)
		}
	}
	for _, code := range want.filters["exited"] {
		if _, err := strconv.Atoi(code); err != nil {
			return want, linkspan.Errorf(linkspan.ErrInvalid, "invalid filter 'exited=%s': it is not a number", code)
		}
	}
	for _, ports := range slices.Concat(want.filters["publish"], want.filters["expose"]) {
		if _, err := apinetwork.ParsePortRange(ports); err != nil {
			return want, linkspan.Errorf(linkspan.ErrInvalid, "invalid filter: %w", err)
		}
	}
	want.images = s.descendants(want.filters["ancestor"])
	if len(want.filters["status"]) > 0 || want.limit > 0 {
		want.all = true
	}
	for _, bound := range []struct {
		field string
		time  *time.Time
	}{{"before", &want.before}, {"since", &want.since}} {
		for _, ref := range want.filters[bound.field] {
			c, err := s.containers.Get(ref)
			if err != nil {
				return want, err
			}
			*bound.time = c.Created
		}
	}
	return want, nil
}

// record tells whether the record of a container passes the filters.
func (l listing) record(c runtime.Container) bool {
	switch {
	case !l.before.IsZero() && !c.Created.Before(l.before), !l.since.IsZero() && !c.Created.After(l.since):
		return false
	case len(l.filters["exited"]) > 0 && (c.State.Status != container.StateExited || !l.exact("exited", strconv.Itoa(c.State.ExitCode))):
		return false
	case len(l.filters["is-task"]) > 0 && !l.exact("is-task", "false"):
		return false
	case !l.exact("health", string(healthOf(c.State).Status)), !l.exact("isolation", "default"), !l.exact("status", string(c.State.Status)):
		return false
	}
	return l.like("name", c.Name, "/"+c.Name) && l.like("id", string(c.ID)) && l.labels(c.Config.Labels) &&
		(l.exact("ancestor", c.Config.Image) || l.images[c.Image]) && l.volume(c)
}

// descendants are the IDs of images, and of those that have all their layers and
// more, or were committed from containers of theirs.
func (s *Server) descendants(refs []string) map[string]bool {
	found := map[string]bool{}
	for _, ref := range refs {
		ancestor, err := s.images.Get(ref)
		if err != nil {
			continue // containers of an image that is gone still have its name
		}
		found[string(ancestor.ID)] = true
		base := ancestor.Spec.RootFS.DiffIDs
		for _, i := range s.images.List() {
			layers := i.Spec.RootFS.DiffIDs
			if i.Parent == ancestor.ID || len(base) > 0 && len(layers) > len(base) && slices.Equal(layers[:len(base)], base) {
				found[string(i.ID)] = true
			}
		}
	}
	return found
}

func (l listing) volume(c runtime.Container) bool {
	if len(l.filters["volume"]) == 0 {
		return true
	}
	for _, point := range mountPoints(c) {
		if l.exact("volume", point.Name) || l.exact("volume", point.Source) || l.exact("volume", point.Destination) {
			return true
		}
	}
	return false
}

// ports tells whether a container publishes ports of the host, and has ports of
// its own, that the filters name.
func (l listing) ports(list []container.PortSummary) bool {
	has := func(field string, number func(container.PortSummary) uint16) bool {
		return len(l.filters[field]) == 0 || slices.ContainsFunc(l.filters[field], func(text string) bool {
			wanted, err := apinetwork.ParsePortRange(text)
			return err == nil && slices.ContainsFunc(list, func(p container.PortSummary) bool {
				n := number(p)
				return string(wanted.Proto()) == p.Type && wanted.Start() <= n && n <= wanted.End()
			})
		})
	}
	return has("expose", func(p container.PortSummary) uint16 { return p.PrivatePort }) &&
		has("publish", func(p container.PortSummary) uint16 { return p.PublicPort })
}

func (l listing) network(networks map[string]*apinetwork.EndpointSettings) bool {
	if len(l.filters["network"]) == 0 {
		return true
	}
	for name, settings := range networks {
		for _, want := range l.filters["network"] {
			if want == name || (want != "" && strings.HasPrefix(settings.NetworkID, want)) {
				return true
			}
		}
	}
	return false
}

// summary is a container as a line of ps.
func (s *Server) summary(c runtime.Container, now time.Time, v version) container.Summary {
	settings := s.networks.Settings(c.ID)
	summary := container.Summary{
		ID: string(c.ID), Names: s.namesOf(c), Image: s.imageName(c), ImageID: c.Image, Command: commandLine(c.Config),
		Created: c.Created.Unix(), Ports: portSummaries(c, settings.Ports), Labels: orEmpty(c.Config.Labels), State: c.State.Status,
		Status: statusText(c.State, now), NetworkSettings: &container.NetworkSettingsSummary{Networks: settings.Networks}, Mounts: mountPoints(c),
	}
	summary.HostConfig.NetworkMode = string(c.HostConfig.NetworkMode)
	if v >= 46 {
		summary.HostConfig.Annotations = c.HostConfig.Annotations
	}
	if v >= 52 {
		summary.Health = healthOf(c.State)
	}
	return summary
}

// namesOf are a container's own name, and those that links of others give it.
func (s *Server) namesOf(c runtime.Container) []string {
	names := []string{"/" + c.Name}
	for _, link := range s.networks.LinkNames(c.ID) {
		names = append(names, "/"+link)
	}
	return names
}

// imageName is what the container was made from, by the name that was given if
// that still leads there, and by its ID otherwise.
func (s *Server) imageName(c runtime.Container) string {
	if c.Image == "" {
		return cmp.Or(c.Config.Image, c.Rootfs)
	}
	if i, err := s.images.Get(c.Config.Image); err == nil && string(i.ID) == c.Image {
		return c.Config.Image
	}
	return c.Image
}

// healthOf is what a list tells of the health check.
func healthOf(s runtime.State) *container.HealthSummary {
	if s.Health == nil {
		return &container.HealthSummary{Status: container.NoHealthcheck}
	}
	return &container.HealthSummary{Status: s.Health.Status, FailingStreak: s.Health.FailingStreak}
}

func commandLine(config *container.Config) string {
	words := slices.Concat(config.Entrypoint, config.Cmd)
	for i, word := range words {
		if i > 0 && strings.Contains(word, " ") {
			words[i] = "'" + word + "'"
		}
	}
	return strings.Join(words, " ")
}

// portSummaries lists the ports in use, and those that are exposed only.
func portSummaries(c runtime.Container, used apinetwork.PortMap) []container.PortSummary {
	ports := []container.PortSummary{}
	for port, bindings := range used {
		for _, binding := range bindings {
			public, err := strconv.ParseUint(binding.HostPort, 10, 16)
			if err == nil {
				ports = append(ports, container.PortSummary{IP: binding.HostIP, PrivatePort: port.Num(), PublicPort: uint16(public), Type: string(port.Proto())})
			}
		}
	}
	if c.State.Running() {
		for port := range c.Config.ExposedPorts {
			if len(used[port]) == 0 {
				ports = append(ports, container.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())})
			}
		}
	}
	slices.SortFunc(ports, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.Type, b.Type), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort))
	})
	return ports
}

// statusText is the sentence that ps prints.
func statusText(s runtime.State, now time.Time) string {
	since := func(t time.Time) string { return units.HumanDuration(max(now.Sub(t), 0)) }
	switch s.Status {
	case container.StateRunning:
		switch health := healthOf(s).Status; health {
		case container.NoHealthcheck:
			return "Up " + since(s.StartedAt)
		case container.Starting:
			return "Up " + since(s.StartedAt) + " (health: starting)"
		default:
			return "Up " + since(s.StartedAt) + " (" + string(health) + ")"
		}
	case container.StatePaused:
		return "Up " + since(s.StartedAt) + " (Paused)"
	case container.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, since(s.FinishedAt))
	case container.StateRemoving:
		return "Removal In Progress"
	case container.StateDead:
		return "Dead"
	case container.StateExited:
		if s.FinishedAt.IsZero() {
			return fmt.Sprintf("Exited (%d)", s.ExitCode)
		}
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, since(s.FinishedAt))
	}
	return "Created"
}
