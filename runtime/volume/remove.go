package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linkspan/linkspan"
)

// Remove removes a volume that no container has, and its files.
func (s *Store) Remove(name string) error {
	return s.remove(name, "")
}

// Discard removes a volume that no container but one has, on that one's
// removal. One that others have as well, or that is gone, is no error.
func (s *Store) Discard(name string, by linkspan.ID) error {
	err := s.remove(name, by)
	if errors.Is(err, linkspan.ErrConflict) || errors.Is(err, linkspan.ErrNotFound) {
		return nil
	}
	return err
}

func (s *Store) remove(name string, by linkspan.ID) error {
	s.mu.Lock()
	if _, err := s.get(name); err != nil {
		s.mu.Unlock()
		return err
	}
	users := slices.DeleteFunc(s.options.Users()[name], func(id linkspan.ID) bool { return id == by })
	if len(users) > 0 {
		s.mu.Unlock()
		return linkspan.Errorf(linkspan.ErrConflict, "remove %s: volume is in use - [%s]", name, strings.Join(texts(users), ", "))
	}
	if s.held[name] > 0 {
		s.mu.Unlock()
		return linkspan.Errorf(linkspan.ErrConflict, "remove %s: volume is in use by a container that is being created", name)
	}
	away, err := s.take(name)
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("removing volume %s: %w", name, err)
	}
	if err := os.RemoveAll(away); err != nil {
		return fmt.Errorf("removing volume %s: %w", name, err)
	}
	return nil
}

// take moves a volume out of the way in one step; deleting takes its time. It
// must be called with mu held.
func (s *Store) take(name string) (string, error) {
	away, err := os.MkdirTemp(s.root, ".gone-")
	if err != nil {
		return "", err
	}
	// Somebody may have removed the files by hand: then only the record is left.
	if err := os.Rename(filepath.Join(s.root, name), filepath.Join(away, "volume")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", errors.Join(err, os.Remove(away))
	}
	delete(s.volumes, name)
	s.event("destroy", name)
	return away, nil
}

func texts(ids []linkspan.ID) []string {
	list := make([]string, len(ids))
	for n, id := range ids {
		list[n] = string(id)
	}
	return list
}

// Prune removes the volumes that which picks and no container has, and returns
// their names and how many bytes they took.
func (s *Store) Prune(which func(Volume) bool) (names []string, reclaimed uint64, err error) {
	users := s.options.Users()
	var errs []error
	for _, v := range s.List() {
		if len(users[v.Name]) > 0 || !which(v) {
			continue
		}
		size, err := v.Size()
		if err == nil {
			err = s.Remove(v.Name)
		}
		if errors.Is(err, linkspan.ErrConflict) || errors.Is(err, linkspan.ErrNotFound) {
			continue // somebody was faster
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		names, reclaimed = append(names, v.Name), reclaimed+uint64(size)
	}
	s.options.Events(Event{Action: "prune", Reclaimed: reclaimed, Time: time.Now()})
	return names, reclaimed, errors.Join(errs...)
}

// Size adds up the files of a volume, in bytes. It walks all of them.
func (v Volume) Size() (int64, error) {
	total := int64(0)
	err := filepath.WalkDir(v.Path, func(_ string, entry os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // removed while we looked
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measuring volume %s: %w", v.Name, err)
	}
	return total, nil
}
