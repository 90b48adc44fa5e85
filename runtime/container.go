package runtime

import (
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/cgroup"
)

// Container is the record of one container: what was asked for, and how it
// stands. It is a value; what a Runtime returns is a copy, whose pointers lead
// to data that nobody changes.
type Container struct {
	ID         linkspan.ID
	Name       string // without Docker's leading slash
	Created    time.Time
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig // as given; for Networks, unread here
	Rootfs     string                    // directory that the container sees copy-on-write; "" with Lower
	Image      string                    // ID of the image, with Lower
	Lower      []string                  // layers of an image, topmost first
	Mounts     []Mount                   // volumes and folders of the host
	State      State
}

// State is how a container stands.
type State struct {
	Status      container.ContainerState
	Pid         int // of its PID 1, as the daemon sees it; 0 unless running or paused
	ExitCode    int // 0…255, 128+signal; 125…128 with Error
	Error       string
	OOMKilled   bool
	StartedAt   time.Time
	FinishedAt  time.Time
	WithVolumes bool   // of a removal under way: anonymous volumes go as well
	BootID      string // /proc/sys/kernel/random/boot_id of the start

	RestartCount int               // starts by the restart policy since the last one that was asked for
	Stopped      bool              // the last run ended because somebody asked for it
	Health       *container.Health // nil without a health check; replaced, never changed
}

// Running tells whether the container has processes.
func (s State) Running() bool {
	return s.Status == container.StateRunning || s.Status == container.StatePaused
}

// Active tells whether the container runs, or will by its restart policy.
func (s State) Active() bool {
	return s.Running() || s.Status == container.StateRestarting
}

// layers returns the overlay's lower directories.
func (c Container) layers() []string {
	if c.Rootfs != "" {
		return []string{c.Rootfs}
	}
	return distinct(c.Lower)
}

// distinct leaves the uppermost of equal layers, as overlayfs refuses to have a
// directory twice. Whatever a layer has hides what it has further down, so
// nothing changes. The empty layer is often in an image more than once.
func distinct(layers []string) []string {
	var list []string
	for _, layer := range layers {
		if !slices.Contains(list, layer) {
			list = append(list, layer)
		}
	}
	return list
}

// checkName allows [a-zA-Z0-9][a-zA-Z0-9_.-]+.
func checkName(name string) error {
	valid := len(name) > 1
	for i := range len(name) {
		c := name[i]
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || c != '_' && c != '.' && c != '-') {
			valid = false
		}
	}
	if !valid {
		return linkspan.Errorf(linkspan.ErrInvalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// adjectives and ships make a name for a container that was given none.
var (
	adjectives = [...]string{
		"able", "bold", "brave", "bright", "brisk", "calm", "clear", "deft", "eager", "fair", "fleet", "fond", "gentle", "glad", "grand", "keen",
		"kind", "lively", "lucky", "merry", "mild", "neat", "nimble", "noble", "patient", "proud", "quick", "quiet", "ready", "sound", "steady", "swift",
	}
	ships = [...]string{
		"barge", "barque", "brig", "canoe", "caravel", "catamaran", "clipper", "coble", "coracle", "cutter", "dhow", "dinghy", "dory", "ferry", "frigate", "galleon",
		"gig", "junk", "kayak", "ketch", "launch", "lighter", "lugger", "packet", "pinnace", "punt", "schooner", "skiff", "sloop", "tender", "trawler", "yawl",
	}
)

// group is the path of its cgroup in each hierarchy.
func (c Container) group() string {
	parent := ""
	if c.HostConfig != nil {
		parent = c.HostConfig.CgroupParent
	}
	return cgroup.Path(parent, string(c.ID))
}
