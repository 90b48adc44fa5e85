package api

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/storage"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/runtime"
)

func (s *Server) inspectContainer(w http.ResponseWriter, r *http.Request) error {
	c, err := s.containers.Get(variable(r, "name"))
	if err != nil {
		return err
	}
	links, err := s.networks.Cables(c.ID)
	if err != nil {
		return err
	}
	v := versionOf(r)
	inspect, own := s.inspect(c), ownPart{links}
	if boolean(r, "size") {
		written, all, err := s.containers.Size(r.Context(), string(c.ID), true)
		if err != nil {
			return err
		}
		inspect.SizeRw, inspect.SizeRootFs = &written, &all
	}
	if v >= 52 {
		writeJSON(w, http.StatusOK, ownInspect{inspect, own})
		return nil
	}
	old := legacyInspect(inspect, v)
	old.Linkspan = own
	writeJSON(w, http.StatusOK, old)
	return nil
}

// ownInspect is a container's inspection with what Docker's does not have.
type ownInspect struct {
	container.InspectResponse
	Linkspan ownPart
}

// ownPart is that.
type ownPart struct{ Links []controller.Cable }

func (s *Server) containerLinks(w http.ResponseWriter, r *http.Request) error {
	c, err := s.containers.Get(variable(r, "ref"))
	if err != nil {
		return err
	}
	links, err := s.networks.Cables(c.ID)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, links)
	return nil
}

// inspect is a container as clients see it.
func (s *Server) inspect(c runtime.Container) container.InspectResponse {
	command := slices.Concat(c.Config.Entrypoint, c.Config.Cmd)
	path, args := "", []string{}
	if len(command) > 0 {
		path, args = command[0], command[1:]
	}
	settings := s.networks.Settings(c.ID)
	data := filepath.Join(s.about.DataRoot, "containers", string(c.ID))
	config := *c.Config
	if config.Hostname == "" && !c.HostConfig.NetworkMode.IsHost() && !c.HostConfig.NetworkMode.IsContainer() {
		config.Hostname = c.ID.Short()
	}
	if config.Labels == nil {
		config.Labels = map[string]string{}
	}
	inspect := container.InspectResponse{
		ID: string(c.ID), Created: c.Created.Format(time.RFC3339Nano), Path: path, Args: args, State: wireState(c.State), Image: c.Image,
		RestartCount: c.State.RestartCount, ExecIDs: s.containers.Execs(c.ID),
		LogPath: logPath(c, data), Name: "/" + c.Name, Driver: "overlay2", Platform: "linux",
		HostConfig: s.hostConfig(c), Config: &config, NetworkSettings: &settings, Mounts: mountPoints(c),
		GraphDriver: &storage.DriverData{Name: "overlay2", Data: map[string]string{
			"ID": string(c.ID), "LowerDir": strings.Join(lower(c), ":"), "UpperDir": filepath.Join(data, "upper"), "WorkDir": filepath.Join(data, "work"),
		}},
	}
	if settings.SandboxID != "" {
		dir := filepath.Join(s.about.ExecRoot, "sandboxes", linkspan.ID(settings.SandboxID).Short())
		inspect.HostsPath, inspect.ResolvConfPath, inspect.HostnamePath = filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hostname")
	}
	return inspect
}

// hostConfig is what the user asked for, but for links: those are shown with the
// names that their targets have by now.
func (s *Server) hostConfig(c runtime.Container) *container.HostConfig {
	shown := *c.HostConfig
	shown.Links = nil
	for _, l := range s.networks.Linked(c.ID) {
		shown.Links = append(shown.Links, "/"+l.TargetName+":/"+l.Name)
	}
	return &shown
}

// logPath is empty for a log in a format that others are not to read.
func logPath(c runtime.Container, data string) string {
	if kind := c.HostConfig.LogConfig.Type; kind != "" && kind != "json-file" {
		return ""
	}
	return filepath.Join(data, string(c.ID)+"-json.log")
}

func lower(c runtime.Container) []string {
	if c.Rootfs != "" {
		return []string{c.Rootfs}
	}
	return c.Lower
}

func wireState(s runtime.State) *container.State {
	return &container.State{
		Status: s.Status, Running: s.Active(), Health: s.Health, Paused: s.Status == container.StatePaused, Restarting: s.Status == container.StateRestarting,
		OOMKilled: s.OOMKilled, Dead: s.Status == container.StateDead, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: s.StartedAt.UTC().Format(time.RFC3339Nano), FinishedAt: s.FinishedAt.UTC().Format(time.RFC3339Nano),
	}
}

// mountPoints lists what the user has mounted.
func mountPoints(c runtime.Container) []container.MountPoint {
	points := []container.MountPoint{}
	for _, m := range c.Mounts {
		points = append(points, m.MountPoint)
	}
	return points
}
