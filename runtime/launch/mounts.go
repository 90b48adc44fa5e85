package launch

import (
	"cmp"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// startError is a refusal with the exit code that Docker gives for it.
type startError struct {
	code int
	text string
}

func (e *startError) Error() string { return e.text }

// doing says what was being done when the kernel refused.
func doing(what string, err error) error {
	if err == nil {
		return nil
	}
	return &startError{code: 128, text: what + ": " + err.Error()}
}

const (
	noExec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	oPath  = unix.O_PATH | unix.O_CLOEXEC
)

// source is a mount taken from the host before the host disappears from view.
type source struct {
	fd    int
	mount Mount
	dir   bool
}

// enterRoot makes the overlay, takes what is wanted of the host's files as
// detached mounts and makes the overlay the root of this thread. Targets are
// only resolved after that, so no symbolic link of the container's files can
// lead a mount out of it.
func enterRoot(s *Spec) ([]source, error) {
	// First, as what is private cannot be made to follow the host any more.
	sources, err := takeSources(s.Mounts)
	if err != nil {
		return nil, err
	}
	if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, doing("making mounts private", err)
	}
	groups, err := takeSources(cgroupMounts(s))
	if err != nil {
		return nil, err
	}
	shared, err := sharedMemory(s)
	if err != nil {
		return nil, err
	}
	if err := mountOverlay(s); err != nil {
		return nil, err
	}
	if err := unix.Chdir(s.Dir); err != nil {
		return nil, doing("entering "+s.Dir, err)
	}
	// Both halves stacked on one directory: no place for the old root is needed
	// in the new one (pivot_root(2), NOTES).
	if err := unix.PivotRoot(".", "."); err != nil {
		return nil, doing("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return nil, doing("leaving the host's root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return nil, doing("entering the new root", err)
	}
	return slices.Concat(shared, groups, sources), nil
}

// sharedMemory takes the /dev/shm that goes with an IPC namespace which is not
// the container's own.
func sharedMemory(s *Spec) ([]source, error) {
	shm := Mount{Source: "/dev/shm", Target: "/dev/shm", Type: "bind"}
	if s.Ipc.Host {
		return takeSources([]Mount{shm})
	}
	if s.Ipc.Pid == 0 {
		return nil, nil
	}
	// A mount can be copied from within its own namespace only.
	own, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, doing("opening the own mount namespace", err)
	}
	defer unix.Close(own)
	if err = join(s.Ipc.Pid, unix.CLONE_NEWNS); err != nil {
		return nil, doing("entering the mount namespace of process "+itoa(s.Ipc.Pid), err)
	}
	taken, err := takeSources([]Mount{shm})
	return taken, errors.Join(err, doing("leaving the mount namespace of process "+itoa(s.Ipc.Pid), unix.Setns(own, unix.CLONE_NEWNS)))
}

func mountOverlay(s *Spec) error {
	lower := make([]string, len(s.Lower))
	for i, dir := range s.Lower {
		lower[i] = escapeOverlay(dir)
	}
	options := ",upperdir=" + escapeOverlay(s.Upper) + ",workdir=" + escapeOverlay(s.Work)
	data := "lowerdir=" + strings.Join(lower, ":") + options
	// mount(2) takes one page of options. An image's layers are neighbours.
	if parent := path.Dir(s.Lower[0]); len(data) >= os.Getpagesize() && parent != "/" {
		if err := unix.Chdir(parent); err != nil {
			return doing("entering "+parent, err)
		}
		for i, dir := range lower {
			lower[i] = strings.TrimPrefix(dir, escapeOverlay(parent)+"/")
		}
		data = "lowerdir=" + strings.Join(lower, ":") + options
	}
	err := error(unix.EINVAL)
	if s.Brief {
		err = mountBrief(s, data)
	}
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("overlay", s.Dir, "overlay", 0, data)
	}
	if errors.Is(err, unix.EINVAL) {
		return doing("mounting overlay over "+strings.Join(s.Lower, ":")+
			" (can the file system of "+s.Upper+" be an upper layer? overlayfs and NFS cannot; put --data-root on ext4, xfs or tmpfs)", err)
	}
	return doing("mounting overlay over "+strings.Join(s.Lower, ":"), err)
}

// mountBrief mounts an overlay that never syncs (Documentation/filesystems/
// overlayfs.rst, "Volatile mount"). Any other waits, when the last process of its
// mount namespace ends and before anybody hears of that end, until all that the
// whole file system below has in memory is on the disk.
func mountBrief(s *Spec, data string) error {
	// Left by an earlier run: the kernel takes it for a warning that the files may
	// not have reached the disk before a power cut. This daemon removes such
	// containers when it comes back from one.
	if err := os.RemoveAll(s.Work + "/work/incompat"); err != nil {
		return doing("making the overlay of an earlier run usable", err)
	}
	return unix.Mount("overlay", s.Dir, "overlay", 0, data+",volatile")
}

// escapeOverlay protects the characters that separate layers and options.
func escapeOverlay(dir string) string {
	var b strings.Builder
	for i := range len(dir) {
		if strings.IndexByte(`\:,`, dir[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(dir[i])
	}
	return b.String()
}

func takeSources(mounts []Mount) ([]source, error) {
	var taken []source
	for _, m := range mounts {
		if m.Type != "bind" {
			taken = append(taken, source{fd: -1, mount: m, dir: true})
			continue
		}
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
		if m.Flags&unix.MS_REC != 0 {
			flags |= unix.AT_RECURSIVE
		}
		fd, err := takeSource(m, flags)
		if err != nil {
			drop(taken)
			what := "taking " + m.Source + " for " + m.Target
			if m.Subpath != "" {
				what = "cannot access path " + path.Join(m.Source, m.Subpath) + " for " + m.Target
			}
			return nil, doing(what, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			drop(taken)
			unix.Close(fd)
			return nil, doing("looking at "+m.Source, err)
		}
		taken = append(taken, source{fd: fd, mount: m, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR})
	}
	return taken, nil
}

// takeSource copies a mount of the host. What is below a source is other
// people's: their links must not lead out of it.
func takeSource(m Mount, flags uint) (int, error) {
	if m.Subpath == "" {
		return unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	}
	base, err := unix.Open(m.Source, oPath|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(base)
	below, err := unix.Openat2(base, m.Subpath, &unix.OpenHow{Flags: oPath, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return -1, err
	}
	defer unix.Close(below)
	return unix.OpenTree(below, "", flags|unix.AT_EMPTY_PATH)
}

func drop(taken []source) {
	for _, src := range taken {
		if src.fd >= 0 {
			unix.Close(src.fd)
		}
	}
}

// cgroupMounts shows the container its own cgroups only, where programs look
// for them: read-only, unless it may change them. A bind of the container's directory looks from within
// its cgroup namespace exactly like a fresh mount of the hierarchy, and does
// not depend on which controllers were mounted together.
func cgroupMounts(s *Spec) []Mount {
	const base = "/sys/fs/cgroup"
	flags := noExec | unix.MS_RDONLY
	if s.Privileged || s.WritableCgroups {
		flags = noExec
	}
	if len(s.Cgroups) == 0 {
		return nil
	}
	if len(s.Cgroups) == 1 && s.Cgroups[0].Name == "" {
		return []Mount{{Source: s.Cgroups[0].Path, Target: base, Type: "bind", Flags: flags}}
	}
	mounts := []Mount{{Target: base, Type: "tmpfs", Flags: noExec, Data: "mode=755"}}
	for _, g := range s.Cgroups {
		mounts = append(mounts, Mount{Source: g.Path, Target: base + "/" + g.Name, Type: "bind", Flags: flags})
	}
	return append(mounts, Mount{Target: base, Flags: unix.MS_REMOUNT | unix.MS_BIND | noExec | unix.MS_RDONLY})
}

// furnish mounts everything but /proc into the new root.
func furnish(s *Spec, sources []source) error {
	sysFlags := noExec | unix.MS_RDONLY
	if s.Privileged {
		sysFlags = noExec
	}
	const dev = unix.MS_NOSUID | unix.MS_STRICTATIME
	base := []Mount{
		{Target: "/dev", Type: "tmpfs", Flags: dev, Data: "mode=755,size=65536k"},
		{Target: "/dev/pts", Type: "devpts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{Target: "/dev/mqueue", Type: "mqueue", Flags: noExec},
		{Target: "/sys", Type: "sysfs", Flags: sysFlags},
	}
	if s.Ipc.own() && !s.NoShm {
		base = append(base, Mount{Source: "shm", Target: "/dev/shm", Type: "tmpfs", Flags: noExec, Data: "mode=1777,size=" + itoa(s.ShmSize)})
	}
	for _, m := range base {
		if err := place(source{fd: -1, mount: m, dir: true}); err != nil {
			return err
		}
	}
	if err := os.MkdirAll("/proc", 0o755); err != nil {
		return doing("making /proc", err)
	}
	if err := makeDevices(s.Devices); err != nil {
		return err
	}
	for _, src := range sources {
		if err := place(src); err != nil {
			return err
		}
	}
	return nil
}

// place mounts one thing, making its target where it is missing.
func place(src source) error {
	m := src.mount
	if m.Type == "" { // a change of flags
		return doing("remounting "+m.Target, unix.Mount("", m.Target, "", uintptr(m.Flags), ""))
	}
	if err := makeTarget(m.Target, src.dir); err != nil {
		return doing("making mount point "+m.Target, err)
	}
	if src.fd < 0 {
		return doing("mounting "+m.Type+" on "+m.Target, unix.Mount(cmp.Or(m.Source, m.Type), m.Target, m.Type, uintptr(m.Flags), m.Data))
	}
	defer unix.Close(src.fd)
	if err := change(src.fd, m); err != nil {
		return doing("setting the flags of "+m.Source+" for "+m.Target, err)
	}
	return doing("mounting "+m.Source+" on "+m.Target,
		unix.MoveMount(src.fd, "", unix.AT_FDCWD, m.Target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS))
}

// change sets the flags of a mount that is not in place yet, all at once:
// nobody ever sees it without them. It is private unless it was asked to be
// something else.
func change(fd int, m Mount) error {
	attributes := &unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if p := m.Flags & (unix.MS_SHARED | unix.MS_SLAVE); p != 0 {
		attributes.Propagation = uint64(p)
	}
	for _, pair := range [][2]int{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
		{unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
	} {
		if m.Flags&pair[0] != 0 {
			attributes.Attr_set |= uint64(pair[1])
		}
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if m.Flags&unix.MS_REC != 0 {
		flags |= unix.AT_RECURSIVE
	}
	if !m.TopOnly {
		return unix.MountSetattr(fd, "", flags, attributes)
	}
	if err := unix.MountSetattr(fd, "", flags, &unix.MountAttr{Propagation: attributes.Propagation}); err != nil {
		return err
	}
	attributes.Propagation = 0
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, attributes)
}

func makeTarget(target string, dir bool) error {
	var st unix.Stat_t
	if unix.Stat(target, &st) == nil {
		return nil
	}
	if dir {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(path.Dir(target), 0o755); err != nil {
		return err
	}
	// A dangling link (/etc/resolv.conf into /run, often) is followed within
	// this root; the kernel makes the file that it names.
	fd, err := unix.Open(target, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if errors.Is(err, unix.ENOENT) {
		if link, lerr := os.Readlink(target); lerr == nil {
			if !path.IsAbs(link) {
				link = path.Join(path.Dir(target), link)
			}
			if err = os.MkdirAll(path.Dir(link), 0o755); err == nil {
				fd, err = unix.Open(target, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
			}
		}
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// makeDevices fills /dev as Docker does: with nodes that lead nowhere, and those
// that were asked for.
func makeDevices(more []Device) error {
	nodes := []struct {
		name         string
		major, minor uint32
	}{
		{"null", 1, 3},
		{"zero", 1, 5},
		{"full", 1, 7},
		{"random", 1, 8},
		{"urandom", 1, 9},
		{"tty", 5, 0},
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	for _, n := range nodes {
		if err := unix.Mknod("/dev/"+n.name, unix.S_IFCHR|0o666, int(unix.Mkdev(n.major, n.minor))); err != nil {
			return doing("making /dev/"+n.name, err)
		}
	}
	links := [][2]string{
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
		{"/proc/kcore", "/dev/core"},
		{"pts/ptmx", "/dev/ptmx"},
	}
	for _, l := range links {
		if err := unix.Symlink(l[0], l[1]); err != nil {
			return doing("linking "+l[1], err)
		}
	}
	// Last: what is there already stays as every container has it.
	for _, d := range more {
		if err := makeDevice(d); err != nil {
			return doing("making device "+d.Target, err)
		}
	}
	return nil
}

func makeDevice(d Device) error {
	if err := os.MkdirAll(path.Dir(d.Target), 0o755); err != nil {
		return err
	}
	err := unix.Mknod(d.Target, uint32(d.Mode), int(unix.Mkdev(uint32(d.Major), uint32(d.Minor))))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Lchown(d.Target, d.UID, d.GID)
}

func itoa[T ~int | ~int64 | ~uint64](n T) string {
	if n == 0 {
		return "0"
	}
	var buf [20]byte
	i := len(buf)
	neg := n < 0
	if neg {
		n = -n
	}
	for ; n > 0; n /= 10 {
		i--
		buf[i] = byte('0' + n%10)
	}
	if neg {
		i--
		buf[i] = '-'
	}
	return string(buf[i:])
}
