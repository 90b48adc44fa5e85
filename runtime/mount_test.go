package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/volume"
)

func binds(list ...string) setting {
	return func(q *Request) { q.HostConfig.Binds = append(q.HostConfig.Binds, list...) }
}

func mounted(list ...mount.Mount) setting {
	return func(q *Request) { q.HostConfig.Mounts = append(q.HostConfig.Mounts, list...) }
}

func said(t *testing.T, b *bench, script string, settings ...setting) string {
	t.Helper()
	state, out, complaint := b.finished(t, script, settings...)
	if state.ExitCode != 0 {
		t.Errorf("%s: exit code %d: %s%s", script, state.ExitCode, out, complaint)
	}
	return strings.TrimSpace(out)
}

// tree is a root file system of our own, with what a container needs to run
// taken from the host by binds.
func tree(t *testing.T) (root string, host setting) {
	t.Helper()
	root = t.TempDir()
	for _, dir := range []string{"etc", "tmp", "data/sub", "empty"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var own []string
	for _, dir := range []string{"bin", "sbin", "lib", "lib64", "usr"} {
		target, err := os.Readlink("/" + dir)
		if err == nil {
			if err := os.Symlink(target, filepath.Join(root, dir)); err != nil {
				t.Fatal(err)
			}
		} else if _, err := os.Stat("/" + dir); err == nil {
			own = append(own, "/"+dir+":/"+dir+":ro")
		}
	}
	return root, func(q *Request) {
		q.Rootfs = root
		q.HostConfig.Binds = append(q.HostConfig.Binds, own...)
	}
}

func TestBinds(t *testing.T) {
	b := open(t)
	dir := t.TempDir()
	missing := filepath.Join(dir, "made", "here")
	if got := said(t, b, `echo in > /mnt/f; cat /mnt/f; grep -c " /mnt " /proc/self/mountinfo`, binds(missing+":/mnt")); got != "in\n1" {
		t.Error(got)
	}
	if text, err := os.ReadFile(filepath.Join(missing, "f")); err != nil || string(text) != "in\n" {
		t.Error(string(text), err)
	}
	if got := said(t, b, `echo x 2>/dev/null > /mnt/g || echo refused`, binds(missing+":/mnt:ro")); got != "refused" {
		t.Error(got)
	}
	// Below a bind that is read-only everything is, but for one that says otherwise.
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(below, unix.MNT_DETACH) })
	script := `{ echo x > /mnt/below/f; } 2>/dev/null && echo written || echo refused`
	one := mount.Mount{Type: mount.TypeBind, Source: dir, Target: "/mnt", ReadOnly: true}
	if got := said(t, b, script, mounted(one)); got != "refused" {
		t.Error(got)
	}
	one.BindOptions = &mount.BindOptions{ReadOnlyNonRecursive: true}
	if got := said(t, b, script, mounted(one)); got != "written" {
		t.Error(got)
	}
	one.BindOptions = &mount.BindOptions{NonRecursive: true}
	if got := said(t, b, `ls /mnt/below | wc -l`, mounted(one)); got != "0" {
		t.Error(got)
	}
}

func TestPropagation(t *testing.T) {
	b := open(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]string{"": "", "rprivate": "", "rslave": "master:", "rshared": "shared:"} {
		bind := dir + ":/mnt"
		if mode != "" {
			bind += ":" + mode
		}
		got := said(t, b, `grep " /mnt " /proc/self/mountinfo`, binds(bind))
		for _, word := range []string{"master:", "shared:"} {
			if strings.Contains(got, word) != (word == want) {
				t.Errorf("%q: %s", mode, got)
			}
		}
	}
}

// A new volume begins with what the image has in its place, and is kept.
func TestNamedVolume(t *testing.T) {
	b := open(t)
	root, host := tree(t)
	if err := os.WriteFile(filepath.Join(root, "data", "f"), []byte("image\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(root, "data"), 77, 88); err != nil {
		t.Fatal(err)
	}
	if got := said(t, b, `cat /data/f; stat -c "%u:%g %a" /data; stat -c %a /data/f; echo more >> /data/f`, host, binds("vol:/data")); got != "image\n77:88 755\n640" {
		t.Error(got)
	}
	if got := said(t, b, `cat /empty/f`, host, binds("vol:/empty")); got != "image\nmore" {
		t.Error(got)
	}
	lender := b.create(t, "true", binds("lent:/data:nocopy"))
	if got := said(t, b, `ls /data | wc -l`, host, func(q *Request) { q.HostConfig.VolumesFrom = []string{lender.Name} }); got != "0" {
		t.Errorf("%s files were copied into a volume of another container", got)
	}
	if got := said(t, b, `ls /data | wc -l`, host, binds("other:/data:nocopy")); got != "0" {
		t.Error(got)
	}
	c := b.create(t, "true", host, mounted(mount.Mount{Type: mount.TypeVolume, Source: "vol", Target: "/v"}))
	point := c.Mounts[len(c.Mounts)-1]
	if point.Name != "vol" || point.Source != filepath.Join(b.data, "volumes", "vol", "_data") || point.Driver != "local" || !point.RW {
		t.Errorf("%+v", point)
	}
	if err := b.Volumes().Remove("vol"); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "volume is in use - [") {
		t.Error(err)
	}
	for _, c := range b.List() {
		if err := b.Remove(t.Context(), string(c.ID), RemoveOptions{Volumes: true}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.Volumes().List()); n != 3 {
		t.Errorf("%d volumes, want vol, lent and other", n)
	}
}

func TestVolumeSubpath(t *testing.T) {
	b := open(t)
	if got := said(t, b, `mkdir -p /v/a/b; echo deep > /v/a/b/f; ln -s / /v/out`, binds("vol:/v")); got != "" {
		t.Error(got)
	}
	one := mount.Mount{Type: mount.TypeVolume, Source: "vol", Target: "/w", VolumeOptions: &mount.VolumeOptions{Subpath: "a/b"}}
	if got := said(t, b, `cat /w/f`, mounted(one)); got != "deep" {
		t.Error(got)
	}
	// A link in the volume leads to the volume's own root, not to the host's.
	one.VolumeOptions.Subpath = "out/a"
	if got := said(t, b, `cat /w/b/f`, mounted(one)); got != "deep" {
		t.Error(got)
	}
	one.VolumeOptions.Subpath = "no/such"
	if err := b.Start(t.Context(), b.create(t, "true", mounted(one)).Name); err == nil || !strings.Contains(err.Error(), "cannot access path ") {
		t.Error(err)
	}
}

func TestAnonymousVolumes(t *testing.T) {
	b := open(t)
	anonymous := func(q *Request) { q.Config.Volumes = map[string]struct{}{"/anon": {}} }
	kept := b.create(t, "true", anonymous)
	gone := b.create(t, "true", anonymous)
	borrower := b.create(t, "true", func(q *Request) { q.HostConfig.VolumesFrom = []string{kept.Name + ":ro"} })
	if m := borrower.Mounts[0]; m.Name != kept.Mounts[0].Name || m.RW || m.Destination != "/anon" {
		t.Errorf("%+v", m)
	}
	lender := b.create(t, "true", anonymous)
	heir := b.create(t, "true", func(q *Request) { q.HostConfig.VolumesFrom = []string{lender.Name} })
	for _, c := range []struct {
		name    string
		volumes bool
	}{{gone.Name, true}, {borrower.Name, true}, {kept.Name, false}, {lender.Name, false}, {heir.Name, true}} {
		if err := b.Remove(t.Context(), c.name, RemoveOptions{Volumes: c.volumes}); err != nil {
			t.Fatal(err)
		}
	}
	// Whoever is the last to have a volume takes it along.
	if list := b.Volumes().List(); len(list) != 1 || list[0].Name != kept.Mounts[0].Name || !list[0].Anonymous() {
		t.Errorf("%+v", list)
	}
	c := b.start(t, "true", anonymous, func(q *Request) { q.HostConfig.AutoRemove = true })
	w, err := b.Waiter(string(c.ID), container.WaitConditionRemoved)
	if err == nil {
		_, err = w.Wait(within(t, 20e9))
	}
	if err != nil && !errors.Is(err, linkspan.ErrNotFound) {
		t.Fatal(err)
	}
	names, _, err := b.Volumes().Prune(func(v volume.Volume) bool { return v.Anonymous() })
	if err != nil || len(names) != 1 {
		t.Error(names, err)
	}
}

func TestTmpfs(t *testing.T) {
	b := open(t)
	got := said(t, b, `grep -E " /(a|b) " /proc/self/mountinfo | awk '{print $5, $6}'; stat -c %a /b`,
		func(q *Request) { q.HostConfig.Tmpfs = map[string]string{"/a": "rw,exec,size=1m"} },
		mounted(mount.Mount{Type: mount.TypeTmpfs, Target: "/b", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o1770}}))
	if !strings.Contains(got, "/a rw,nosuid,nodev") || strings.Contains(got, "/a rw,nosuid,nodev,noexec") || !strings.Contains(got, "/b rw,nosuid,nodev,noexec") || !strings.HasSuffix(got, "1770") {
		t.Error(got)
	}
}

func TestMountRefusals(t *testing.T) {
	b := open(t)
	for text, s := range map[string]setting{
		"invalid mode: nonsense":                                     binds("/a:/b:nonsense"),
		"invalid mode: ro,rw":                                        binds("/a:/b:ro,rw"),
		"invalid mode: nocopy":                                       binds("/a:/b:nocopy"),
		"Duplicate mount point: /b":                                  binds("/a:/b", "/c:/b/"),
		"destination can't be '/'":                                   binds("/a:/"),
		"'b' mount path must be absolute":                            binds("/a:b"),
		"create ../x: \"../x\" includes invalid characters":          binds("../x:/b"),
		"invalid volume specification: '/a:/b:ro:x'":                 binds("/a:/b:ro:x"),
		"field Target must not be empty":                             mounted(mount.Mount{Type: mount.TypeBind, Source: "/a"}),
		"field Source must not be empty":                             mounted(mount.Mount{Type: mount.TypeBind, Target: "/a"}),
		"field TmpfsOptions must not be specified":                   mounted(mount.Mount{Type: mount.TypeBind, Source: "/", Target: "/a", TmpfsOptions: &mount.TmpfsOptions{}}),
		"for type \"nonsense\": mount type unknown":                  mounted(mount.Mount{Type: "nonsense", Target: "/a"}),
		"invalid propagation mode: nonsense":                         mounted(mount.Mount{Type: mount.TypeBind, Source: "/", Target: "/a", BindOptions: &mount.BindOptions{Propagation: "nonsense"}}),
		"subpath must be a relative path within the volume":          mounted(mount.Mount{Type: mount.TypeVolume, Source: "v", Target: "/a", VolumeOptions: &mount.VolumeOptions{Subpath: "../.."}}),
		"error looking up volume plugin x: plugin \"x\" not":         mounted(mount.Mount{Type: mount.TypeVolume, Source: "v", Target: "/a", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "x"}}}),
		"invalid tmpfs option [\"nonsense\"]":                        func(q *Request) { q.HostConfig.Tmpfs = map[string]string{"/a": "nonsense"} },
		"\"/proc/sys\" cannot be mounted because it is inside /proc": func(q *Request) { q.Config.Volumes = map[string]struct{}{"/proc//sys": {}} },
		"\"/proc/1\" cannot be mounted because it is inside /proc":   func(q *Request) { q.HostConfig.Tmpfs = map[string]string{"/proc/1": ""} },
		"No such container: nosuch":                                  func(q *Request) { q.HostConfig.VolumesFrom = []string{"nosuch"} },
		"invalid mode: x (of volumes-from nosuch)":                   func(q *Request) { q.HostConfig.VolumesFrom = []string{"nosuch:x"} },
	} {
		q := Request{Config: &container.Config{Cmd: []string{"true"}}, HostConfig: &container.HostConfig{}, Rootfs: "/"}
		s(&q)
		_, _, err := b.Create(t.Context(), q)
		if known := (*linkspan.Error)(nil); !errors.As(err, &known) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %s", err, text)
		}
	}
	if n, v := len(b.List()), len(b.Volumes().List()); n > 0 || v > 0 {
		t.Errorf("%d containers and %d volumes are left", n, v)
	}
	c := b.create(t, "true", mounted(mount.Mount{Type: mount.TypeBind, Source: "/no/such", Target: "/a"}))
	if err := b.Start(t.Context(), c.Name); !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), "bind source path does not exist: /no/such") {
		t.Error(err)
	}
}

// Binds of the daemon's own data must not keep what is mounted there busy.
func TestBindOfDataRoot(t *testing.T) {
	b := open(t)
	for _, source := range []string{b.data, filepath.Join(b.data, "containers")} {
		for word, want := range map[string]mount.Propagation{"": "rslave", ":rslave": "rslave", ":rshared": "rshared", ":private": "", ":rprivate": "", ":slave": "", ":shared": ""} {
			q := Request{Config: &container.Config{Cmd: []string{"true"}}, HostConfig: &container.HostConfig{Binds: []string{source + ":/a" + word}}, Rootfs: "/"}
			c, _, err := b.Create(t.Context(), q)
			switch {
			case want == "" && (!errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), `"rslave" or "rshared"`)):
				t.Errorf("%s%s: %v", source, word, err)
			case want != "" && (err != nil || c.Mounts[0].Propagation != want):
				t.Errorf("%s%s: %v %v", source, word, c.Mounts, err)
			}
		}
	}
}

// mount(2) takes one page of options; images have more layers than fit in with
// their whole paths.
func TestManyLayers(t *testing.T) {
	b := open(t)
	root, host := tree(t)
	parent := filepath.Join(t.TempDir(), strings.Repeat("long", 20))
	var lower []string
	for n := range 100 {
		dir := filepath.Join(parent, fmt.Sprintf("layer-%d", n))
		if err := os.MkdirAll(filepath.Join(dir, "many"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "many", fmt.Sprint(n)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		lower = append(lower, dir)
	}
	got := said(t, b, `ls /many | wc -l`, host, func(q *Request) {
		q.Rootfs, q.Image, q.Lower = "", "sha256:x", append(append(lower, root), lower[0], root)
	})
	if got != "100" {
		t.Errorf("%s layers are seen", got)
	}
}
