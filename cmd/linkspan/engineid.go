package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// engineID names the daemon of a data root, for docker info: it stays the same
// as long as the root does.
func engineID(dataRoot string) (string, error) {
	name := filepath.Join(dataRoot, "engine-id")
	text, err := os.ReadFile(name)
	if id := strings.TrimSpace(string(text)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the engine's ID: %w", err)
	}
	if err := os.MkdirAll(dataRoot, 0o711); err != nil {
		return "", fmt.Errorf("writing the engine's ID: %w", err)
	}
	var random [16]byte
	rand.Read(random[:]) //nolint:errcheck // never fails
	id := hex.EncodeToString(random[:])
	id = strings.Join([]string{id[:8], id[8:12], id[12:16], id[16:20], id[20:]}, "-")
	if err := os.WriteFile(name, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("writing the engine's ID: %w", err)
	}
	return id, nil
}
