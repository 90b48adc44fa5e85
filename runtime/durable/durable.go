// Package durable writes small files whole: a reader, and a daemon that comes
// back after a crash, finds the old text or the new one and nothing between.
//
// By hand:
//
//	printf … >record.new && sync record.new && mv record.new record && sync .
//
// rename(2) replaces a name in one step; the two syncs make it outlast a power
// cut.
package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Replace makes the JSON of v the content of the file. With sync it is on the
// disk on return; without, it outlasts the daemon and nearly always a power
// cut. Writers of one file must take turns.
func Replace(name string, v any, sync bool) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", name, err)
	}
	file, err := os.OpenFile(name+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("writing record: %w", err)
	}
	_, err = file.Write(text)
	if err == nil && sync {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing record: %w", err)
	}
	if err = os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("writing record: %w", err)
	}
	if !sync {
		return nil
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("writing record: %w", err)
	}
	if err = errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("writing record: %w", err)
	}
	return nil
}
