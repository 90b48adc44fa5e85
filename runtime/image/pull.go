package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/linkspan/linkspan"
)

const (
	transfers    = 3                      // layers at a time, as Docker has it
	idleRegistry = 30 * time.Second       // for what a registry may be slow with
	progressStep = 100 * time.Millisecond // between two reports of one layer
)

// Pull fetches an image. What is here already is not fetched again. An error
// before the first report is a plain refusal.
func (s *Store) Pull(ctx context.Context, ref string, want ocispec.Platform, c Credentials, tell Progress) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return errReference(err)
	}
	named = reference.TagNameOnly(named)
	at, err := s.remoteName(named)
	if err != nil {
		return err
	}
	o := s.remoteOptions(ctx, c)
	if want.OS != "" || want.Architecture != "" {
		w := here(want)
		o = append(o, remote.WithPlatform(v1.Platform{OS: w.OS, Architecture: w.Architecture, Variant: w.Variant}))
	} else {
		w := here(want)
		o = append(o, remote.WithPlatform(v1.Platform{OS: w.OS, Architecture: w.Architecture}))
	}
	found, err := remote.Get(at, o...)
	if err != nil {
		return refused("pull", named, err)
	}
	picked, err := found.Image()
	if err != nil {
		if strings.Contains(err.Error(), "no child with platform") {
			return linkspan.Errorf(linkspan.ErrNotFound, "no matching manifest for %s in the manifest list entries", platformText(want))
		}
		return refused("pull", named, err)
	}
	tag := "latest"
	switch n := named.(type) {
	case reference.Tagged:
		tag = n.Tag()
	case reference.Digested:
		tag = n.Digest().String()
	}
	p := pull{s: s, in: s.ingest(), tell: serial(tell), named: named}
	defer p.in.done()
	p.tell(jsonstream.Message{ID: tag, Status: "Pulling from " + reference.Path(named)})
	if err := p.fetch(ctx, picked, found.Digest, want); err != nil {
		return refused("pull", named, err)
	}
	return nil
}

// serial lets several goroutines report.
func serial(tell Progress) Progress {
	var mu sync.Mutex
	return func(m jsonstream.Message) {
		mu.Lock()
		defer mu.Unlock()
		tell(m)
	}
}

// pull is one image on its way here.
type pull struct {
	s     *Store
	in    *ingest
	tell  Progress
	named reference.Named
}

func (p pull) fetch(ctx context.Context, from v1.Image, top v1.Hash, want ocispec.Platform) error {
	config, err := from.RawConfigFile()
	if err != nil {
		return err
	}
	manifest, err := from.RawManifest()
	if err != nil {
		return err
	}
	if err := p.check(from, want); err != nil {
		return err
	}
	diffs, err := diffsOf(config)
	if err != nil {
		return err
	}
	layers, err := from.Layers()
	if err != nil {
		return err
	}
	if len(layers) != len(diffs) {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid image: a configuration of %d layers with %d of them", len(diffs), len(layers))
	}
	held, named := p.has(config)
	layered := p
	if held {
		layered.tell = func(jsonstream.Message) {} // nothing is on its way
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for n, layer := range layers {
		group.Go(func() error { return layered.layer(gctx, layer, diffs[n]) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	a := addition{config: config}
	if a.manifest, err = p.in.blob(manifest); err != nil {
		return err
	}
	canonical, err := reference.WithDigest(reference.TrimNamed(p.named), digest.Digest(top.String()))
	if err != nil {
		return err
	}
	a.digests = []reference.Canonical{canonical}
	if tagged, ok := p.named.(reference.NamedTagged); ok {
		a.tags = []reference.NamedTagged{tagged}
	}
	i, err := p.in.add(a)
	if err != nil {
		return err
	}
	p.s.event("pull", reference.FamiliarString(p.named), reference.FamiliarName(p.named), i.Spec.Config.Labels)
	p.tell(jsonstream.Message{Status: "Digest: " + top.String()})
	status := "Status: Downloaded newer image for "
	if named {
		status = "Status: Image is up to date for "
	}
	p.tell(jsonstream.Message{Status: status + reference.FamiliarString(p.named)})
	return nil
}

// has tells whether this very image is here already, and by this name.
func (p pull) has(config []byte) (held, named bool) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	id := digest.FromBytes(config)
	held = p.s.images[id] != nil
	return held, p.s.tags[p.named.String()] == id || held && p.s.names[p.named.String()] == id
}

// check refuses an image that came alone and is for another platform than was
// asked for. Without a wish any will do: what it is worth shows at the start.
func (p pull) check(from v1.Image, want ocispec.Platform) error {
	if want.OS == "" && want.Architecture == "" {
		return nil
	}
	c, err := from.ConfigFile()
	if err != nil {
		return err
	}
	has := ocispec.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
	if !fits(has, want) {
		return linkspan.Errorf(linkspan.ErrNotFound, "image with reference %s was found but its platform (%s) does not match the specified platform (%s)", reference.FamiliarString(p.named), platformText(has), platformText(want))
	}
	return nil
}

func (p pull) layer(ctx context.Context, from v1.Layer, diff digest.Digest) error {
	d, err := from.Digest()
	if err != nil {
		return err
	}
	id := d.Hex[:12]
	if _, ok := p.in.known(diff); ok {
		p.tell(jsonstream.Message{ID: id, Status: "Already exists"})
		return nil
	}
	p.tell(jsonstream.Message{ID: id, Status: "Pulling fs layer", Progress: &jsonstream.Progress{}})
	size, err := from.Size()
	if err != nil {
		return err
	}
	stream, err := from.Compressed()
	if err != nil {
		return fmt.Errorf("fetching layer %s: %w", d, err)
	}
	defer stream.Close() //nolint:errcheck // it was only read
	// A registry that falls silent is left when the client goes.
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	m := &meter{Reader: stream, total: size, tell: func(n int64) {
		p.tell(jsonstream.Message{ID: id, Status: "Downloading", Progress: &jsonstream.Progress{Current: n, Total: size}})
	}}
	l, err := p.in.layer(m, diff)
	if err != nil {
		// What the tar reader makes of an end that came too early tells nobody why.
		return cmp.Or(ctx.Err(), m.failed, err)
	}
	if l.Blob.Digest != digest.Digest(d.String()) && l.Diff != diff {
		return linkspan.Errorf(linkspan.ErrInvalid, "layer %s is not what its digest says", d)
	}
	p.tell(jsonstream.Message{ID: id, Status: "Pull complete", Progress: &jsonstream.Progress{}})
	return nil
}

// meter reports how far a transfer is, now and then, and remembers why it
// ended.
type meter struct {
	io.Reader
	n, total int64
	last     time.Time
	failed   error
	tell     func(n int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.n += int64(n)
	if now := time.Now(); now.Sub(m.last) >= progressStep {
		m.last = now
		m.tell(m.n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		m.failed = err
	}
	return n, err
}

// Remote describes what a registry has under a name, without fetching it.
func (s *Store) Remote(ctx context.Context, ref string, c Credentials) (registry.DistributionInspect, error) {
	var answer registry.DistributionInspect
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return answer, errReference(err)
	}
	named = reference.TagNameOnly(named)
	at, err := s.remoteName(named)
	if err != nil {
		return answer, err
	}
	found, err := remote.Get(at, s.remoteOptions(ctx, c)...)
	if err != nil {
		return answer, refused("pull", named, err)
	}
	answer.Descriptor = ocispec.Descriptor{MediaType: string(found.MediaType), Digest: digest.Digest(found.Digest.String()), Size: found.Size}
	answer.Platforms = []ocispec.Platform{}
	if found.MediaType.IsIndex() {
		if answer.Platforms, err = platformsOf(found); err != nil {
			return answer, refused("pull", named, err)
		}
		return answer, nil
	}
	one, err := found.Image()
	if err != nil {
		return answer, refused("pull", named, err)
	}
	config, err := one.ConfigFile()
	if err != nil {
		return answer, refused("pull", named, err)
	}
	answer.Platforms = append(answer.Platforms, ocispec.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant})
	return answer, nil
}

// platformsOf lists those that an index has images for.
func platformsOf(d *remote.Descriptor) ([]ocispec.Platform, error) {
	index, err := d.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	list := []ocispec.Platform{}
	for _, d := range m.Manifests {
		if d.Platform != nil {
			list = append(list, ocispec.Platform{OS: d.Platform.OS, Architecture: d.Platform.Architecture, Variant: d.Platform.Variant})
		}
	}
	return list, nil
}
