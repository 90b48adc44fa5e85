package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/linkspan/linkspan/op"
)

// files keeps records and their plans, one file each: DIR/KIND/ID.json.
type files struct {
	dir   string
	codec *op.Codec
}

// record is what a file holds.
type record[T any] struct {
	Value T
	Plan  op.Plan
}

type storedRecord struct {
	Value json.RawMessage
	Plan  json.RawMessage
}

func put[T any](f files, kind, id string, r record[T]) error {
	value, err := json.Marshal(r.Value)
	if err != nil {
		return fmt.Errorf("keeping %s %s: %w", kind, id, err)
	}
	plan, err := f.codec.Marshal(r.Plan)
	if err != nil {
		return fmt.Errorf("keeping %s %s: %w", kind, id, err)
	}
	raw, err := json.Marshal(storedRecord{value, plan})
	if err != nil {
		return fmt.Errorf("keeping %s %s: %w", kind, id, err)
	}
	path := filepath.Join(f.dir, kind, id+".json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keeping %s %s: %w", kind, id, err)
	}
	// Whole or not at all, also when the power fails.
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return fmt.Errorf("keeping %s %s: %w", kind, id, err)
	}
	return os.Rename(path+".new", path)
}

func get[T any](f files, kind, id string) (r record[T], known bool, err error) {
	if id == "" || strings.ContainsAny(id, "/.") {
		return r, false, fmt.Errorf("%q is no ID of a %s", id, kind)
	}
	raw, err := os.ReadFile(filepath.Join(f.dir, kind, id+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("reading %s %s: %w", kind, id, err)
	}
	var stored storedRecord
	if err = json.Unmarshal(raw, &stored); err == nil {
		err = json.Unmarshal(stored.Value, &r.Value)
	}
	if err == nil {
		r.Plan, err = f.codec.Unmarshal(stored.Plan)
	}
	if err != nil {
		return r, false, fmt.Errorf("reading %s %s: %w", kind, id, err)
	}
	return r, true, nil
}

func (f files) drop(kind, id string) error {
	err := os.Remove(filepath.Join(f.dir, kind, id+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ids lists what there is of a kind.
func (f files) ids(kind string) []string {
	paths, err := filepath.Glob(filepath.Join(f.dir, kind, "*.json"))
	if err != nil {
		return nil
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(filepath.Base(path), ".json")
	}
	return paths
}
