package image

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
)

// CommitOptions say what a changed container is to be.
type CommitOptions struct {
	Parent    string // ID of the image that the container was made of
	Name      string // with or without tag; "" for none
	Config    dockerspec.DockerOCIImageConfig
	Author    string
	Comment   string
	CreatedBy string
}

// Commit makes an image of another one and a layer above it, which it unpacks
// as it reads.
func (s *Store) Commit(layer io.Reader, o CommitOptions) (Image, error) {
	var tags []reference.NamedTagged
	if o.Name != "" {
		name, err := ParseName(o.Name)
		if err != nil {
			return Image{}, err
		}
		tags = append(tags, name)
	}
	parent, release, err := s.Use(o.Parent)
	if err != nil {
		return Image{}, err
	}
	defer release()
	in := s.ingest()
	defer in.done()
	for _, diff := range parent.Spec.RootFS.DiffIDs {
		in.known(diff)
	}
	top, err := in.layer(layer, "")
	if err != nil {
		return Image{}, err
	}
	now := time.Now().UTC()
	spec := parent.Spec
	spec.Created, spec.Author, spec.Config = &now, o.Author, o.Config
	spec.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: append(slices.Clone(spec.RootFS.DiffIDs), top.Diff)}
	spec.History = append(slices.Clone(spec.History), ocispec.History{Created: &now, Author: o.Author, Comment: o.Comment, CreatedBy: o.CreatedBy})
	text, err := json.Marshal(spec)
	if err != nil {
		return Image{}, fmt.Errorf("encoding the image's configuration: %w", err)
	}
	return in.add(addition{config: text, parent: digest.Digest(o.Parent), tags: tags})
}

// ConfigOf is what an image keeps of a container's configuration.
func ConfigOf(c *container.Config) dockerspec.DockerOCIImageConfig {
	var config dockerspec.DockerOCIImageConfig
	config.User, config.WorkingDir, config.StopSignal = c.User, c.WorkingDir, c.StopSignal
	config.Env, config.Entrypoint, config.Cmd = c.Env, c.Entrypoint, c.Cmd
	config.Volumes, config.Labels, config.OnBuild, config.Shell, config.Healthcheck = c.Volumes, c.Labels, c.OnBuild, c.Shell, c.Healthcheck
	for port := range c.ExposedPorts {
		if config.ExposedPorts == nil {
			config.ExposedPorts = map[string]struct{}{}
		}
		config.ExposedPorts[port.String()] = struct{}{}
	}
	return config
}

// CheckParent refuses a container that no image is below of.
func CheckParent(id string) error {
	if id == "" {
		return linkspan.Errorf(linkspan.ErrNotImplemented, "a container that runs on a directory cannot be committed: export it and import the result (docker export, docker import)")
	}
	return nil
}
