package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/durable"
)

const (
	recordFile = "container.json"
	stateFile  = "state.json"
)

func (r *Runtime) dataDir(id linkspan.ID) string {
	return filepath.Join(r.options.DataRoot, "containers", string(id))
}

func (r *Runtime) execDir(id linkspan.ID) string {
	return filepath.Join(r.options.ExecRoot, "containers", string(id))
}

// saveRecord writes what does not change from run to run. It is on the disk on
// return, unless the container is removed at its exit: such a container is gone
// after a power cut whether or not its record is.
func (r *Runtime) saveRecord(c Container) error {
	c.State = State{}
	sync := c.HostConfig == nil || !c.HostConfig.AutoRemove
	return durable.Replace(filepath.Join(r.dataDir(c.ID), recordFile), c, sync)
}

// saveState writes the state. It survives the daemon, and nearly always a power
// cut; where it does not, the container counts as exited.
func (r *Runtime) saveState(c Container) error {
	return durable.Replace(filepath.Join(r.dataDir(c.ID), stateFile), c.State, false)
}

// errNoRecord is a directory whose creation, or removal, did not get far.
var errNoRecord = errors.New("no record")

// load reads a container back. A missing or damaged state is the zero State.
func (r *Runtime) load(id linkspan.ID) (Container, error) {
	var c Container
	name := filepath.Join(r.dataDir(id), recordFile)
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(text) == 0:
		return c, errNoRecord
	case err != nil:
		return c, fmt.Errorf("reading record: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("reading record %s: %w", name, err)
	}
	if c.ID != id || c.Config == nil || c.HostConfig == nil {
		return c, fmt.Errorf("reading record %s: it is of container %q", name, c.ID)
	}
	if text, err := os.ReadFile(filepath.Join(r.dataDir(id), stateFile)); err == nil {
		if err := json.Unmarshal(text, &c.State); err != nil {
			c.State = State{}
		}
	}
	return c, nil
}
