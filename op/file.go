package op

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// WriteFile writes a text file that a container reads, such as its /etc/hosts,
// into a directory of the daemon's. The text ends in a newline.
type WriteFile struct {
	Path string
	Text string
}

// Do writes the file, with mode 0644, and the directories above it.
func (o WriteFile) Do(_ context.Context, _ *kernel.Host) error {
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", o.Path, err)
	}
	file, err := os.OpenFile(o.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return linkspan.Errorf(linkspan.ErrConflict, "writing %s: the file is there already: %w", o.Path, err)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", o.Path, err)
	}
	_, err = file.WriteString(o.Text)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", o.Path, err)
	}
	return nil
}

// Undo removes the file, and its directory if that is empty then.
func (o WriteFile) Undo(_ context.Context, _ *kernel.Host) error {
	if err := os.Remove(o.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", o.Path, err)
	}
	os.Remove(filepath.Dir(o.Path)) //nolint:errcheck // fails while other files are in it, as it should
	return nil
}

// Check finds the file. Its text may differ: a user may edit it.
func (o WriteFile) Check(_ context.Context, _ *kernel.Host) error {
	if _, err := os.Stat(o.Path); err != nil {
		return fmt.Errorf("looking for the file: %w", err)
	}
	return nil
}

func (o WriteFile) String() string {
	end := "EOF"
	for bytes.Contains([]byte(o.Text), []byte(end)) {
		end += "_"
	}
	text := o.Text
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return fmt.Sprintf("mkdir -p %s && cat > %s <<'%s'\n%s%s", quote(filepath.Dir(o.Path)), quote(o.Path), end, text, end)
}
