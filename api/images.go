package api

import (
	"net/http"
	"slices"
	"time"

	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"

	"github.com/linkspan/linkspan/runtime/image"
)

func imageRoutes() []Route {
	return []Route{
		{"GET", "/images/json", (*Server).listImages},
		{"POST", "/images/prune", (*Server).pruneImages},
		{"GET", "/images/{name:.*}/json", (*Server).inspectImage},
		{"GET", "/images/{name:.*}/history", (*Server).imageHistory},
		{"POST", "/images/{name:.*}/tag", (*Server).tagImage},
		{"DELETE", "/images/{name:.*}", (*Server).removeImage},
	}
}

// imageSummary adds what clients before 1.44 expect.
type imageSummary struct {
	apiimage.Summary
	VirtualSize *int64 `json:",omitempty"`
}

func (s *Server) listImages(w http.ResponseWriter, r *http.Request) error {
	want, names, err := s.imageFilter(r)
	if err != nil {
		return err
	}
	containers := s.imageUsers()
	list := []imageSummary{}
	for _, i := range s.images.List() {
		if !want(i) {
			continue
		}
		if len(names) > 0 {
			i = i.Only(names)
		}
		summary := imageSummary{Summary: imageSummaryOf(i)}
		if versionOf(r) >= 51 {
			summary.Containers = containers[string(i.ID)]
		}
		if versionOf(r) < 44 {
			summary.VirtualSize = &i.Size
		}
		list = append(list, summary)
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

// imageUsers counts the containers of each image.
func (s *Server) imageUsers() map[string]int64 {
	containers := map[string]int64{}
	for _, c := range s.containers.List() {
		containers[c.Image]++
	}
	return containers
}

func imageSummaryOf(i image.Image) apiimage.Summary {
	return apiimage.Summary{
		Containers: -1, Created: i.Created().Unix(), ID: string(i.ID), Labels: i.Spec.Config.Labels, ParentID: string(i.Parent),
		RepoDigests: empty(i.Digests), RepoTags: empty(i.Tags), SharedSize: -1, Size: i.Size,
	}
}

// empty is a list that is [] in JSON.
func empty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// imageFilter reads which images a client wants to see, and the patterns of the
// names that it wants to see them by, if it says so.
func (s *Server) imageFilter(r *http.Request) (want func(image.Image) bool, names []string, err error) {
	f, err := filtersOf(r, "dangling", "label", "before", "since", "reference", "until")
	if err != nil {
		return nil, nil, err
	}
	dangling, given, err := f.oneBool("dangling")
	if err != nil {
		return nil, nil, err
	}
	var before, since time.Time
	for field, bound := range map[string]*time.Time{"before": &before, "since": &since} {
		for _, ref := range f[field] {
			i, err := s.images.Get(ref)
			if err != nil {
				return nil, nil, err
			}
			*bound = i.Created()
		}
	}
	for _, text := range f["until"] {
		until, err := parseTime(text, s.now())
		if err != nil {
			return nil, nil, err
		}
		if before.IsZero() || until.Before(before) {
			before = until
		}
	}
	return func(i image.Image) bool {
		switch {
		case given && dangling != (len(i.Tags) == 0):
			return false
		case !before.IsZero() && !i.Created().Before(before), !since.IsZero() && !i.Created().After(since):
			return false
		case len(f["reference"]) > 0 && !slices.ContainsFunc(f["reference"], i.Matches):
			return false
		}
		return f.labels(i.Spec.Config.Labels)
	}, f["reference"], nil
}

// imageInspection adds what clients before 1.44 expect.
type imageInspection struct {
	apiimage.InspectResponse
	VirtualSize *int64 `json:",omitempty"`
}

func (s *Server) inspectImage(w http.ResponseWriter, r *http.Request) error {
	i, err := s.images.Get(variable(r, "name"))
	if err != nil {
		return err
	}
	spec := i.Spec
	inspection := imageInspection{InspectResponse: apiimage.InspectResponse{
		ID: string(i.ID), RepoTags: empty(i.Tags), RepoDigests: empty(i.Digests), Author: spec.Author, Config: &spec.Config,
		Architecture: spec.Architecture, Variant: spec.Variant, Os: spec.OS, OsVersion: spec.OSVersion, Size: i.Size,
		GraphDriver: &storage.DriverData{Name: "overlay2", Data: layerDirs(i)}, RootFS: apiimage.RootFS{Type: spec.RootFS.Type},
		Metadata: apiimage.Metadata{LastTagTime: i.Tagged},
	}}
	if !i.Created().IsZero() {
		inspection.Created = i.Created().Format(time.RFC3339Nano)
	}
	if n := len(spec.History); n > 0 {
		inspection.Comment = spec.History[n-1].Comment
	}
	for _, layer := range spec.RootFS.DiffIDs {
		inspection.RootFS.Layers = append(inspection.RootFS.Layers, string(layer))
	}
	if versionOf(r) < 44 {
		inspection.VirtualSize = &i.Size
	}
	writeJSON(w, http.StatusOK, inspection)
	return nil
}

// layerDirs tells where the layers are unpacked.
func layerDirs(i image.Image) map[string]string {
	dirs := map[string]string{}
	for n, dir := range i.Lower {
		if n == 0 {
			dirs["UpperDir"] = dir
			continue
		}
		if dirs["LowerDir"] != "" {
			dirs["LowerDir"] += ":"
		}
		dirs["LowerDir"] += dir
	}
	return dirs
}

func (s *Server) tagImage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if err := s.images.Tag(variable(r, "name"), image.JoinName(q.Get("repo"), q.Get("tag"))); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Server) removeImage(w http.ResponseWriter, r *http.Request) error {
	gone, err := s.images.Remove(variable(r, "name"), boolean(r, "force"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, gone)
	return nil
}

func (s *Server) imageHistory(w http.ResponseWriter, r *http.Request) error {
	history, err := s.images.History(variable(r, "name"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, history)
	return nil
}

// pruneImages removes what has no name and no user; with dangling=false, what
// has no user.
func (s *Server) pruneImages(w http.ResponseWriter, r *http.Request) error {
	f, err := filtersOf(r, "dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	dangling, given, err := f.oneBool("dangling")
	if err != nil {
		return err
	}
	var until time.Time
	for _, text := range f["until"] {
		if until, err = parseTime(text, s.now()); err != nil {
			return err
		}
	}
	gone, reclaimed, err := s.images.Prune(func(i image.Image) bool {
		return (len(i.Tags) == 0 || given && !dangling) && f.prunable(i.Spec.Config.Labels, i.Created(), until)
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, apiimage.PruneReport{ImagesDeleted: gone, SpaceReclaimed: reclaimed})
	return nil
}
