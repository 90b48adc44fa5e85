package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/linkspan/linkspan"
)

// Remove takes a name away from an image, and the image with its last name. A
// reference by ID takes all. Force is needed where a container that is not
// running was made of it, or where an ID has names in several repositories;
// nothing removes the image of a running container.
func (s *Store) Remove(ref string, force bool) ([]image.DeleteResponse, error) {
	s.mu.Lock()
	users := s.options.InUse()
	var done []image.DeleteResponse
	i, err := s.find(ref)
	if err == nil {
		if isID(ref, i) && !s.isName(ref) {
			done, err = s.removeID(i, users, force)
		} else {
			done, err = s.removeName(i, users, ref, force)
		}
	}
	var gone []string
	if len(done) > 0 {
		var more []image.DeleteResponse
		var serr error
		more, gone, serr = s.sweep(users)
		done, err = append(done, more...), errors.Join(err, serr)
	}
	s.mu.Unlock()
	return done, errors.Join(err, discard(gone))
}

// isName tells whether a reference that could be an ID is a name after all.
func (s *Store) isName(ref string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return false
	}
	_, ok := s.tags[reference.TagNameOnly(named).String()]
	return ok
}

func usersOf(id digest.Digest, users []User) (running, stopped *User) {
	for n, u := range users {
		if u.Image != string(id) {
			continue
		}
		if u.Running {
			running = &users[n]
		} else {
			stopped = &users[n]
		}
	}
	return running, stopped
}

func (s *Store) removeID(i *Image, users []User, force bool) ([]image.DeleteResponse, error) {
	short := i.ID.Encoded()[:12]
	running, stopped := usersOf(i.ID, users)
	named := s.named(i)
	switch {
	case running != nil:
		return nil, linkspan.Errorf(linkspan.ErrConflict, "conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", short, running.Container.Short())
	case stopped != nil && !force:
		return nil, linkspan.Errorf(linkspan.ErrConflict, "conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", short, stopped.Container.Short())
	case s.held[i.ID] > 0:
		return nil, linkspan.Errorf(linkspan.ErrConflict, "conflict: unable to delete %s (cannot be forced) - image is being used by a request under way", short)
	case len(repositories(named)) > 1 && !force:
		return nil, linkspan.Errorf(linkspan.ErrConflict, "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short)
	}
	var done []image.DeleteResponse
	for _, name := range slices.Concat(named.Tags, named.Digests) {
		done = append(done, image.DeleteResponse{Untagged: name})
	}
	s.untag(i, func(string) bool { return true })
	deleted, err := s.remove(i)
	return append(done, deleted...), err
}

func repositories(i Image) []string {
	var names []string
	for _, name := range slices.Concat(i.Tags, i.Digests) {
		if named, err := reference.ParseNormalizedNamed(name); err == nil {
			names = append(names, named.Name())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// untag takes names away in memory; the caller saves.
func (s *Store) untag(i *Image, which func(full string) bool) []string {
	var gone []string
	for _, names := range []map[string]digest.Digest{s.tags, s.names} {
		for name, id := range names {
			if id == i.ID && which(name) {
				delete(names, name)
				gone = append(gone, familiar(name))
			}
		}
	}
	slices.Sort(gone)
	for _, name := range gone {
		s.event("untag", string(i.ID), name, i.Spec.Config.Labels)
	}
	return gone
}

func (s *Store) removeName(i *Image, users []User, ref string, force bool) ([]image.DeleteResponse, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, errReference(err)
	}
	full := reference.TagNameOnly(named).String()
	if digested, ok := named.(reference.Digested); ok {
		full = named.Name() + "@" + digested.Digest().String()
	}
	last := true
	for name, id := range s.tags {
		if id == i.ID && name != full {
			last = false
		}
	}
	running, stopped := usersOf(i.ID, users)
	if last && !force {
		if user := firstUser(running, stopped); user != nil {
			return nil, linkspan.Errorf(linkspan.ErrConflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s", ref, user.Container.Short(), i.ID.Encoded()[:12])
		}
	}
	// The digests of a repository go with its last tag.
	repository := named.Name()
	others := false
	for name, id := range s.tags {
		if id == i.ID && name != full && strings.HasPrefix(name, repository+":") {
			others = true
		}
	}
	gone := s.untag(i, func(name string) bool {
		return name == full || !others && strings.HasPrefix(name, repository+"@")
	})
	var done []image.DeleteResponse
	for _, name := range gone {
		done = append(done, image.DeleteResponse{Untagged: name})
	}
	if s.isNamed(i) || running != nil || s.held[i.ID] > 0 {
		return done, s.saveReferences()
	}
	if stopped != nil && !force {
		return done, s.saveReferences()
	}
	deleted, err := s.remove(i)
	return append(done, deleted...), err
}

func firstUser(users ...*User) *User {
	for _, u := range users {
		if u != nil {
			return u
		}
	}
	return nil
}

func (s *Store) isNamed(i *Image) bool {
	for _, names := range []map[string]digest.Digest{s.tags, s.names} {
		for _, id := range names {
			if id == i.ID {
				return true
			}
		}
	}
	return false
}

// remove takes the record away: the layers follow in sweep. Names are to be
// gone already.
func (s *Store) remove(i *Image) ([]image.DeleteResponse, error) {
	if err := s.saveReferences(); err != nil {
		return nil, err
	}
	if err := os.Remove(s.path("images", i.ID.Encoded()+".json")); err != nil {
		return nil, fmt.Errorf("removing image %s: %w", i.ID, err)
	}
	delete(s.images, i.ID)
	s.event("delete", string(i.ID), "", i.Spec.Config.Labels)
	return []image.DeleteResponse{{Deleted: string(i.ID)}}, nil
}

// sweep moves layers and blobs that nothing needs out of the way; the caller
// deletes what it returns when it no longer holds mu.
func (s *Store) sweep(users []User) (done []image.DeleteResponse, gone []string, err error) {
	needed, wanted := map[digest.Digest]bool{}, map[string]bool{}
	for _, i := range s.images {
		needed[i.ID], needed[i.Manifest] = true, true
		for _, id := range i.Spec.RootFS.DiffIDs {
			needed[id] = true
		}
	}
	for _, u := range users {
		for _, dir := range u.Lower {
			wanted[dir] = true
		}
	}
	for id, l := range s.layers {
		if needed[id] || wanted[l.link] || s.held[id] > 0 {
			for _, blob := range l.blobs() {
				needed[blob] = true
			}
			continue
		}
		away, rerr := s.moveAway(s.path("layers", id.Encoded()))
		if rerr == nil {
			rerr = os.Remove(l.link)
		}
		if rerr != nil {
			err = errors.Join(err, fmt.Errorf("removing layer %s: %w", id, rerr))
			continue
		}
		gone = append(gone, away)
		for name, holder := range s.short {
			if holder == id {
				delete(s.short, name)
			}
		}
		delete(s.layers, id)
		done = append(done, image.DeleteResponse{Deleted: string(id)})
	}
	blobs, rerr := os.ReadDir(s.path("blobs", "sha256"))
	if rerr != nil {
		return done, gone, errors.Join(err, fmt.Errorf("reading blobs: %w", rerr))
	}
	for _, blob := range blobs {
		id := digest.NewDigestFromEncoded(digest.SHA256, blob.Name())
		if needed[id] || s.held[id] > 0 {
			continue
		}
		away, rerr := s.moveAway(s.blobPath(id))
		if rerr != nil {
			err = errors.Join(err, fmt.Errorf("removing %s: %w", id, rerr))
			continue
		}
		gone = append(gone, away)
	}
	return done, gone, err
}

// moveAway makes room for another of the same name at once: deleting takes its
// time.
func (s *Store) moveAway(name string) (string, error) {
	dir, err := os.MkdirTemp(s.path("tmp"), "gone-")
	if err != nil {
		return "", err
	}
	return dir, os.Rename(name, filepath.Join(dir, filepath.Base(name)))
}

func discard(paths []string) error {
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// Prune removes the images that which picks and no container uses, with all
// their names. Bytes are those of unpacked layers.
func (s *Store) Prune(which func(Image) bool) (gone []image.DeleteResponse, reclaimed uint64, err error) {
	s.mu.Lock()
	users := s.options.InUse()
	before := s.size()
	var errs []error
	for _, i := range s.images {
		if running, stopped := usersOf(i.ID, users); running != nil || stopped != nil || s.held[i.ID] > 0 || !which(s.named(i)) {
			continue
		}
		for _, name := range s.untag(i, func(string) bool { return true }) {
			gone = append(gone, image.DeleteResponse{Untagged: name})
		}
		deleted, rerr := s.remove(i)
		gone, errs = append(gone, deleted...), append(errs, rerr)
	}
	layers, paths, err := s.sweep(users)
	gone = append(gone, layers...)
	reclaimed = uint64(before - s.size())
	s.mu.Unlock()
	errs = append(errs, err, discard(paths))
	s.options.Events(Event{Action: "prune", Reclaimed: reclaimed, Time: time.Now()})
	return gone, reclaimed, errors.Join(errs...)
}

// size must be called with mu held.
func (s *Store) size() int64 {
	total := int64(0)
	for _, l := range s.layers {
		total += l.Size
	}
	return total
}

// Size is how many bytes all layers take, each once, unpacked.
func (s *Store) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size()
}

// SizeOf is how many bytes some of the layers take, by their directories.
func (s *Store) SizeOf(layers map[string]bool) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := int64(0)
	for _, l := range s.layers {
		if layers[l.link] {
			total += l.Size
		}
	}
	return total
}
