package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// bench is a store under test.
type bench struct {
	*Store
	root   string
	users  []User
	events []string
}

func open(t *testing.T) *bench {
	t.Helper()
	b := &bench{root: t.TempDir()}
	b.reopen(t)
	return b
}

// reopen is what a new daemon does.
func (b *bench) reopen(t *testing.T) {
	t.Helper()
	store, err := Open(Options{
		DataRoot: b.root, InUse: func() []User { return b.users }, Logf: t.Logf,
		Events: func(e Event) { b.events = append(b.events, e.Action) },
	})
	must(t, err)
	b.Store = store
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archived makes a tar of entries; a file's content is its name.
func archived(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range entries {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == 0 || h.Typeflag == tar.TypeReg {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.Name))
		}
		must(t, w.WriteHeader(&h))
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	must(t, w.Close())
	return out.Bytes()
}

func (b *bench) imported(t *testing.T, name string, entries ...tar.Header) Image {
	t.Helper()
	i, err := b.Import(bytes.NewReader(archived(t, entries...)), ImportOptions{Name: name})
	must(t, err)
	return i
}

func TestImport(t *testing.T) {
	b := open(t)
	i := b.imported(t, "lab/tool:1",
		tar.Header{Name: "bin/tool", Mode: 0o4755, Uid: 5, Gid: 6},
		tar.Header{Name: "bin/hard", Typeflag: tar.TypeLink, Linkname: "bin/tool", Mode: 0o4755, Uid: 5, Gid: 6},
		tar.Header{Name: "bin/soft", Typeflag: tar.TypeSymlink, Linkname: "/bin/tool"},
		tar.Header{Name: "dev/odd", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		tar.Header{Name: "pipe", Typeflag: tar.TypeFifo},
		tar.Header{Name: "marked", PAXRecords: map[string]string{"SCHILY.xattr.user.note": "kept"}},
		tar.Header{Name: ".wh.gone"},
		tar.Header{Name: "opaque/.wh..wh..opq"},
	)
	b.reopen(t)
	for _, ref := range []string{"lab/tool:1", "docker.io/lab/tool:1", string(i.ID), i.ID.Encoded(), i.ID.Encoded()[:5], "sha256:" + i.ID.Encoded()[:9]} {
		got, err := b.Get(ref)
		must(t, err)
		if diff := cmp.Diff(i.ID, got.ID); diff != "" {
			t.Errorf("%s: %s", ref, diff)
		}
	}
	dir := i.Lower[0]
	var tool, hard, odd, gone unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"bin/tool": &tool, "bin/hard": &hard, "dev/odd": &odd, "gone": &gone} {
		must(t, unix.Lstat(filepath.Join(dir, name), st))
	}
	if tool.Mode&0o7777 != 0o4755 || tool.Uid != 5 || tool.Gid != 6 || tool.Ino != hard.Ino || odd.Rdev != unix.Mkdev(1, 3) || gone.Rdev != 0 || gone.Mode&unix.S_IFMT != unix.S_IFCHR {
		t.Errorf("%+v %+v %+v %+v", tool, hard, odd, gone)
	}
	value := make([]byte, 9)
	for name, want := range map[string]string{"marked user.note": "kept", "opaque trusted.overlay.opaque": "y"} {
		file, attribute, _ := strings.Cut(name, " ")
		n, err := unix.Getxattr(filepath.Join(dir, file), attribute, value)
		if err != nil || string(value[:n]) != want {
			t.Errorf("%s: %v %q", name, err, value)
		}
	}
	if want := int64(len("bin/tool" + "marked")); i.Size != want {
		t.Errorf("size %d, want %d", i.Size, want)
	}
}

// A layer is on the disk once, whoever uses it, and goes with its last user.
func TestLayersAreShared(t *testing.T) {
	b := open(t)
	one, two := b.imported(t, "one", tar.Header{Name: "f"}), b.imported(t, "two", tar.Header{Name: "f"})
	if diff := cmp.Diff(one.Lower, two.Lower); diff != "" || one.ID == two.ID {
		t.Fatal(one.ID, two.ID, diff)
	}
	b.users = []User{{Container: "cc", Image: string(two.ID), Lower: two.Lower}}
	for _, name := range []string{"one", "two"} {
		if _, err := b.Remove(name, true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(two.Lower[0], "f")); err != nil {
		t.Error("the layer of a container went with its image:", err)
	}
	b.users = nil
	last := b.imported(t, "last", tar.Header{Name: "g"})
	if _, err := b.Remove("last", false); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"images", "layers", "blobs/sha256", "l", "tmp"} {
		left, err := os.ReadDir(filepath.Join(b.root, "images", dir))
		must(t, err)
		if len(left) > 0 {
			t.Errorf("%s has %v left (%v)", dir, left, last.ID)
		}
	}
}

func TestRefusals(t *testing.T) {
	b := open(t)
	i := b.imported(t, "in/use", tar.Header{Name: "f"})
	b.users = []User{{Container: "cafecafecafecafe", Image: string(i.ID), Lower: i.Lower, Running: true}}
	short := i.ID.Encoded()[:12]
	kinds := []struct {
		do   func() error
		kind error
		text string
	}{
		{func() error { _, err := b.Get("nosuch"); return err }, linkspan.ErrNotFound, "No such image: nosuch:latest"},
		{func() error { _, err := b.Get("a/b@" + string(i.ID)); return err }, linkspan.ErrNotFound, "No such image: a/b@" + string(i.ID)},
		{func() error { _, err := b.Get("BAD"); return err }, linkspan.ErrInvalid, "invalid reference format: repository name (library/BAD) must be lowercase"},
		{func() error { _, err := b.Get("../../etc/passwd"); return err }, linkspan.ErrInvalid, "invalid reference format"},
		{func() error { return b.Tag("in/use", "x@"+string(i.ID)) }, linkspan.ErrInvalid, "refusing to create a tag with a digest reference"},
		{func() error { _, err := b.Remove("in/use", false); return err }, linkspan.ErrConflict, `conflict: unable to remove repository reference "in/use" (must force) - container cafecafecafe is using its referenced image ` + short},
		{func() error { _, err := b.Remove(short, true); return err }, linkspan.ErrConflict, "conflict: unable to delete " + short + " (cannot be forced) - image is being used by running container cafecafecafe"},
		{func() error {
			_, err := b.Import(strings.NewReader("no tar at all, but long enough to look at"), ImportOptions{})
			return err
		}, linkspan.ErrInvalid, "unpacking archive: "},
		{func() error {
			_, err := b.Import(bytes.NewReader(archived(t, tar.Header{Name: "../../out"})), ImportOptions{})
			return err
		}, linkspan.ErrInvalid, "unpacking archive: "},
		{func() error {
			_, err := b.Import(bytes.NewReader(archived(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../etc/passwd"})), ImportOptions{})
			return err
		}, linkspan.ErrInvalid, "unpacking archive: "},
	}
	for _, k := range kinds {
		err := k.do()
		if !errors.Is(err, k.kind) || !strings.HasPrefix(err.Error(), k.text) {
			t.Errorf("%v, want %q", err, k.text)
		}
	}
	if left, err := os.ReadDir(filepath.Join(b.root, "images", "tmp")); err != nil || len(left) > 0 {
		t.Errorf("%v %v", left, err)
	}
}

func TestMerge(t *testing.T) {
	var i Image
	i.Spec.Config.Env, i.Spec.Config.Cmd, i.Spec.Config.Entrypoint = []string{"A=1", "B=2"}, []string{"c"}, []string{"e"}
	i.Spec.Config.User, i.Spec.Config.WorkingDir, i.Spec.Config.StopSignal = "u", "/w", "SIGINT"
	i.Spec.Config.Labels = map[string]string{"k": "image", "l": "image"}
	for _, c := range []struct {
		name        string
		given, want container.Config
	}{
		{"nothing", container.Config{}, container.Config{Cmd: []string{"c"}, Entrypoint: []string{"e"}, User: "u"}},
		{"command", container.Config{Cmd: []string{"x"}, User: "me"}, container.Config{Cmd: []string{"x"}, Entrypoint: []string{"e"}, User: "me"}},
		{"entry point", container.Config{Entrypoint: []string{"x"}}, container.Config{Entrypoint: []string{"x"}, User: "u"}},
		{"no entry point", container.Config{Entrypoint: []string{""}, Cmd: []string{"x"}}, container.Config{Cmd: []string{"x"}, User: "u"}},
	} {
		c.given.Env, c.given.Labels = []string{"B=3"}, map[string]string{"l": "given"}
		c.want.Env, c.want.Labels = []string{"B=3", "A=1"}, map[string]string{"k": "image", "l": "given"}
		c.want.WorkingDir, c.want.StopSignal = "/w", "SIGINT"
		must(t, i.Merge(&c.given))
		if diff := cmp.Diff(c.want, c.given); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}
