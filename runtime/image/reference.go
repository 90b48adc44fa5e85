package image

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/linkspan/linkspan"
)

// A name such as busybox is short for docker.io/library/busybox:latest. The
// store keeps the long form and shows the short ("familiar") one.

var (
	hexDigits = regexp.MustCompile(`^[0-9a-f]+$`)
	wholeHex  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// familiar shortens a full name.
func familiar(full string) string {
	parsed, err := reference.ParseNormalizedNamed(full)
	if err != nil {
		return full
	}
	return reference.FamiliarString(parsed)
}

// ParseName reads a name that something is to be called by; a tag is added
// where it has none.
func ParseName(text string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return nil, errReference(err)
	}
	if reference.FamiliarName(named) == string(digest.Canonical) {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "refusing to create a tag with a digest reference")
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if !ok {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid reference format: %s", text)
	}
	return tagged, nil
}

// JoinName makes a name of a repository and a tag, as routes give them.
func JoinName(repository, tag string) string {
	if tag == "" {
		return repository
	}
	return repository + ":" + tag
}

// errNoImage is in Docker's words: its command looks for the first three.
func errNoImage(ref string) error {
	return linkspan.Errorf(linkspan.ErrNotFound, "No such image: %s", ref)
}

// errReference is in Docker's words, which the parser's own begin with mostly.
func errReference(err error) error {
	if strings.HasPrefix(err.Error(), "invalid reference format") {
		return linkspan.Errorf(linkspan.ErrInvalid, "%w", err)
	}
	return linkspan.Errorf(linkspan.ErrInvalid, "invalid reference format: %w", err)
}

// find must be called with mu held.
func (s *Store) find(ref string) (*Image, error) {
	if strings.HasPrefix(ref, "sha256:") {
		if i := s.images[digest.Digest(ref)]; i != nil {
			return i, nil
		}
		return s.byPrefix(strings.TrimPrefix(ref, "sha256:"), ref)
	}
	if wholeHex.MatchString(ref) {
		if i := s.images[digest.NewDigestFromEncoded(digest.SHA256, ref)]; i != nil {
			return i, nil
		}
		return nil, errNoImage(ref)
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, errReference(err)
	}
	if digested, ok := named.(reference.Digested); ok {
		if id, known := s.names[named.Name()+"@"+digested.Digest().String()]; known {
			return s.images[id], nil
		}
		if i := s.images[digested.Digest()]; i != nil && s.hasRepository(i, named.Name()) {
			return i, nil
		}
		return nil, errNoImage(ref)
	}
	tagged := reference.TagNameOnly(named)
	if id, ok := s.tags[tagged.String()]; ok {
		return s.images[id], nil
	}
	if hexDigits.MatchString(ref) {
		if i, perr := s.byPrefix(ref, ref); perr == nil || !isMissing(perr) {
			return i, perr
		}
	}
	return nil, errNoImage(reference.FamiliarString(tagged))
}

func isMissing(err error) bool { return strings.HasPrefix(err.Error(), "No such image") }

func (s *Store) hasRepository(i *Image, name string) bool {
	for full, id := range s.tags {
		if id == i.ID && strings.HasPrefix(full, name+":") {
			return true
		}
	}
	return false
}

func (s *Store) byPrefix(prefix, ref string) (*Image, error) {
	var found *Image
	for id, i := range s.images {
		if prefix == "" || !strings.HasPrefix(id.Encoded(), prefix) {
			continue
		}
		if found != nil {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "ambiguous image ID prefix: %s", ref)
		}
		found = i
	}
	if found == nil {
		return nil, errNoImage(ref)
	}
	return found, nil
}

// isID tells whether a reference names an image by its ID rather than by a name.
func isID(ref string, i *Image) bool {
	bare := strings.TrimPrefix(ref, "sha256:")
	return strings.HasPrefix(i.ID.Encoded(), bare) && hexDigits.MatchString(bare)
}

// Matches tells whether one of the image's names fits a pattern: a name, with
// or without tag, in which * and ? of path.Match stand for what is between
// slashes.
func (i Image) Matches(pattern string) bool {
	return slices.ContainsFunc(slices.Concat(i.Tags, i.Digests), func(name string) bool { return matches(name, pattern) })
}

// Only returns the image with those of its names alone that match a pattern.
func (i Image) Only(patterns []string) Image {
	other := func(name string) bool {
		return !slices.ContainsFunc(patterns, func(pattern string) bool { return matches(name, pattern) })
	}
	i.Tags = slices.DeleteFunc(slices.Clone(i.Tags), other)
	i.Digests = slices.DeleteFunc(slices.Clone(i.Digests), other)
	return i
}

func matches(name, pattern string) bool {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return false
	}
	for _, form := range []string{reference.FamiliarString(named), reference.FamiliarName(named)} {
		if ok, err := path.Match(pattern, form); err == nil && ok {
			return true
		}
	}
	return false
}

// Tag gives an image one more name. What had the name before loses it.
func (s *Store) Tag(ref, name string) error {
	tagged, err := ParseName(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.tag(i, tagged)
}

// tag must be called with mu held.
func (s *Store) tag(i *Image, name reference.NamedTagged) error {
	old, had := s.tags[name.String()]
	s.tags[name.String()] = i.ID
	if err := s.saveReferences(); err != nil {
		delete(s.tags, name.String())
		if had {
			s.tags[name.String()] = old
		}
		return err
	}
	i.Tagged = time.Now().UTC()
	if err := s.saveRecord(i); err != nil {
		return err
	}
	s.event("tag", string(i.ID), reference.FamiliarString(name), i.Spec.Config.Labels)
	return nil
}
