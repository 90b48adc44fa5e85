package api

import (
	"net/http"
	"slices"
	"time"

	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/volume"
)

func volumeRoutes() []Route {
	return []Route{
		{"GET", "/volumes", (*Server).listVolumes},
		{"POST", "/volumes/create", (*Server).createVolume},
		{"POST", "/volumes/prune", (*Server).pruneVolumes},
		{"GET", "/volumes/{name:.*}", (*Server).inspectVolume},
		{"PUT", "/volumes/{name:.*}", (*Server).updateVolume},
		{"DELETE", "/volumes/{name:.*}", (*Server).removeVolume},
	}
}

// wireVolume is a volume as clients see it.
func wireVolume(v volume.Volume) apivolume.Volume {
	wire := apivolume.Volume{
		CreatedAt: v.Created.Format(time.RFC3339), Driver: volume.Driver, Labels: v.Labels, Mountpoint: v.Path, Name: v.Name, Options: v.Options, Scope: "local",
	}
	if wire.Labels == nil {
		wire.Labels = map[string]string{}
	}
	if wire.Options == nil {
		wire.Options = map[string]string{}
	}
	return wire
}

func (s *Server) listVolumes(w http.ResponseWriter, r *http.Request) error {
	f, err := filtersOf(r, "dangling", "driver", "label", "name")
	if err != nil {
		return err
	}
	dangling, given, err := f.oneBool("dangling")
	if err != nil {
		return err
	}
	users := s.volumes.Users()
	list := apivolume.ListResponse{Volumes: []apivolume.Volume{}, Warnings: []string{}}
	for _, v := range s.volumes.List() {
		if given && dangling != (len(users[v.Name]) == 0) || !f.exact("driver", volume.Driver) || !f.labels(v.Labels) || !f.like("name", v.Name) {
			continue
		}
		list.Volumes = append(list.Volumes, wireVolume(v))
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

func (s *Server) createVolume(w http.ResponseWriter, r *http.Request) error {
	var q apivolume.CreateRequest
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	if q.ClusterVolumeSpec != nil {
		return linkspan.Errorf(linkspan.ErrNotImplemented, "there are no cluster volumes here")
	}
	v, err := s.volumes.Create(volume.Request{Name: q.Name, Driver: q.Driver, Labels: q.Labels, Options: q.DriverOpts})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, wireVolume(v))
	return nil
}

func (s *Server) inspectVolume(w http.ResponseWriter, r *http.Request) error {
	v, err := s.volumes.Get(variable(r, "name"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, wireVolume(v))
	return nil
}

func (s *Server) updateVolume(_ http.ResponseWriter, r *http.Request) error {
	if _, err := s.volumes.Get(variable(r, "name")); err != nil {
		return err
	}
	return linkspan.Errorf(linkspan.ErrNotImplemented, "only cluster volumes can be updated, and there are none here")
}

func (s *Server) removeVolume(w http.ResponseWriter, r *http.Request) error {
	err := s.volumes.Remove(variable(r, "name"))
	if err != nil && boolean(r, "force") && statusOf(err) == http.StatusNotFound {
		err = nil
	}
	return done(w, err)
}

// pruneVolumes removes what no container has: volumes without a name of their
// own, or with the filter all=true any.
func (s *Server) pruneVolumes(w http.ResponseWriter, r *http.Request) error {
	f, err := filtersOf(r, "label", "label!", "all")
	if err != nil {
		return err
	}
	all, _, err := f.oneBool("all")
	if err != nil {
		return err
	}
	all = all || versionOf(r) < 42
	names, reclaimed, err := s.volumes.Prune(func(v volume.Volume) bool {
		return (all || v.Anonymous()) && f.prunable(v.Labels, v.Created, time.Time{})
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	writeJSON(w, http.StatusOK, apivolume.PruneReport{VolumesDeleted: empty(names), SpaceReclaimed: reclaimed})
	return nil
}
