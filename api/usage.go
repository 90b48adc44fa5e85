package api

import (
	"errors"
	"net/http"
	"slices"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/linkspan/linkspan"
)

// oldDiskUsage is what API versions before 1.52 have.
type oldDiskUsage struct {
	LayersSize int64
	Images     []apiimage.Summary
	Containers []container.Summary
	Volumes    []apivolume.Volume
	BuildCache []struct{}
}

// diskUsage tells what is on the disk, and what could go. A kind that a client
// does not ask for is not measured.
func (s *Server) diskUsage(w http.ResponseWriter, r *http.Request) error {
	wanted := r.URL.Query()["type"]
	want := func(kind system.DiskUsageObject) bool {
		return len(wanted) == 0 || slices.Contains(wanted, string(kind))
	}
	var usage system.DiskUsage
	var err error
	if want(system.ImageObject) {
		usage.ImageUsage = s.imageUsage()
	}
	if want(system.ContainerObject) {
		if usage.ContainerUsage, err = s.containerUsage(r); err != nil {
			return err
		}
	}
	if want(system.VolumeObject) {
		if usage.VolumeUsage, err = s.volumeUsage(); err != nil {
			return err
		}
	}
	if want(system.BuildCacheObject) {
		usage.BuildCacheUsage = &build.DiskUsage{}
	}
	if versionOf(r) < 52 {
		writeJSON(w, http.StatusOK, oldUsage(usage))
		return nil
	}
	if !boolean(r, "verbose") {
		withoutItems(&usage)
	}
	writeJSON(w, http.StatusOK, usage)
	return nil
}

// oldUsage has null for a kind that was not measured, and a list, be it empty, for
// one that was.
func oldUsage(usage system.DiskUsage) oldDiskUsage {
	var old oldDiskUsage
	if usage.ImageUsage != nil {
		old.LayersSize, old.Images = usage.ImageUsage.TotalSize, usage.ImageUsage.Items
	}
	if usage.ContainerUsage != nil {
		old.Containers = usage.ContainerUsage.Items
	}
	if usage.VolumeUsage != nil {
		old.Volumes = usage.VolumeUsage.Items
	}
	if usage.BuildCacheUsage != nil {
		old.BuildCache = []struct{}{}
	}
	return old
}

func withoutItems(usage *system.DiskUsage) {
	if usage.ImageUsage != nil {
		usage.ImageUsage.Items = nil
	}
	if usage.ContainerUsage != nil {
		usage.ContainerUsage.Items = nil
	}
	if usage.VolumeUsage != nil {
		usage.VolumeUsage.Items = nil
	}
}

func (s *Server) imageUsage() *apiimage.DiskUsage {
	usage := &apiimage.DiskUsage{TotalSize: s.images.Size(), Items: []apiimage.Summary{}}
	users, used := s.imageUsers(), map[string]bool{}
	for _, i := range s.images.List() {
		summary := imageSummaryOf(i)
		summary.Containers = users[string(i.ID)]
		usage.TotalCount++
		if summary.Containers > 0 {
			usage.ActiveCount++
			for _, layer := range i.Lower {
				used[layer] = true
			}
		}
		usage.Items = append(usage.Items, summary)
	}
	usage.Reclaimable = usage.TotalSize - s.images.SizeOf(used)
	return usage
}

func (s *Server) containerUsage(r *http.Request) (*container.DiskUsage, error) {
	usage := &container.DiskUsage{Items: []container.Summary{}}
	v, now := versionOf(r), s.now()
	for _, c := range s.containers.List() {
		summary := s.summary(c, now, v)
		var err error
		summary.SizeRw, summary.SizeRootFs, err = s.containers.Size(r.Context(), string(c.ID), true)
		if errors.Is(err, linkspan.ErrNotFound) {
			continue // it has gone since
		}
		if err != nil {
			return nil, err
		}
		usage.TotalCount++
		usage.TotalSize += summary.SizeRw
		if c.State.Running() {
			usage.ActiveCount++
		} else {
			usage.Reclaimable += summary.SizeRw
		}
		usage.Items = append(usage.Items, summary)
	}
	return usage, nil
}

func (s *Server) volumeUsage() (*apivolume.DiskUsage, error) {
	usage := &apivolume.DiskUsage{Items: []apivolume.Volume{}}
	users := s.volumes.Users()
	for _, v := range s.volumes.List() {
		size, err := v.Size()
		if err != nil {
			return nil, err
		}
		wire := wireVolume(v)
		wire.UsageData = &apivolume.UsageData{RefCount: int64(len(users[v.Name])), Size: size}
		usage.TotalCount++
		usage.TotalSize += size
		if wire.UsageData.RefCount > 0 {
			usage.ActiveCount++
		} else {
			usage.Reclaimable += size
		}
		usage.Items = append(usage.Items, wire)
	}
	return usage, nil
}
