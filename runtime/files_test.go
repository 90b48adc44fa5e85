package runtime

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
)

// names lists the entries of an archive, with the content of files.
func names(t *testing.T, p []byte) map[string]string {
	t.Helper()
	list := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(p)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list[h.Name] = string(text) + h.Linkname
	}
}

func (b *bench) copied(t *testing.T, c Container, path string) map[string]string {
	t.Helper()
	var out bytes.Buffer
	if err := b.CopyOut(t.Context(), string(c.ID), path, func(container.PathStat) io.Writer { return &out }); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return names(t, out.Bytes())
}

func packed(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		h.Mode = 0o644
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, h.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

// untilReady waits until the container has said so.
func (b *bench) untilReady(t *testing.T, c Container) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, complaint := b.output(t, c)
		if strings.Contains(out, "ready") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %s%s", c.Name, out, complaint)
		}
	}
}

// states are the two in which a container's files can be got at.
func states(t *testing.T, script string, settings ...setting) (*bench, map[string]Container) {
	t.Helper()
	b := open(t)
	list := map[string]Container{}
	for _, state := range []string{"running", "stopped"} {
		list[state] = b.start(t, script+"; echo ready; exec sleep 3600", append(settings, func(q *Request) { q.Name = state })...)
		b.untilReady(t, list[state])
	}
	if err := b.Kill(t.Context(), "stopped", "KILL"); err != nil {
		t.Fatal(err)
	}
	b.wait(t, list["stopped"])
	return b, list
}

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	b, list := states(t, `mkdir -p /w/d; echo f > /w/f; echo g > /w/d/g; ln -s /w/d /w/l; ln -s ../../../../etc/hostname /w/out; mkfifo /w/pipe`, binds(dir+":/bound"))
	for state, c := range list {
		if got := b.copied(t, c, "/w/f"); len(got) != 1 || got["f"] != "f\n" {
			t.Errorf("%s: %q", state, got)
		}
		if got := b.copied(t, c, "/w/d"); got["d/g"] != "g\n" {
			t.Errorf("%s: %q", state, got)
		}
		if got := b.copied(t, c, "/w/l"); got["l"] != "/w/d" {
			t.Errorf("%s: a link is copied as such: %q", state, got)
		}
		if got := b.copied(t, c, "/w/l/"); got["l/g"] != "g\n" {
			t.Errorf("%s: %q", state, got)
		}
		if got := b.copied(t, c, "/w/d/."); got["./g"] != "g\n" {
			t.Errorf("%s: %q", state, got)
		}
		stat, err := b.PathStat(t.Context(), state, "/w/l")
		if err != nil || stat.Name != "l" || stat.LinkTarget != "/w/d" || stat.Mode&os.ModeSymlink == 0 {
			t.Error(state, stat, err)
		}
		// In again, through a link, and to where something is mounted.
		for _, to := range []string{"/w/l", "/bound"} {
			if err := b.CopyIn(t.Context(), state, to, packed(t, tar.Header{Name: "new-" + state}), false, false); err != nil {
				t.Error(state, err)
			}
		}
		if got := b.copied(t, c, "/w/d"); got["d/new-"+state] == "" {
			t.Errorf("%s: %q", state, got)
		}
		if _, err := os.Stat(filepath.Join(dir, "new-"+state)); err != nil {
			t.Error(state, err)
		}
	}
	// What was put into a container that did not run is there when it does.
	if err := b.Start(t.Context(), "stopped"); err != nil {
		t.Fatal(err)
	}
	if got := b.copied(t, list["stopped"], "/w/d"); got["d/new-stopped"] == "" {
		t.Errorf("%q", got)
	}
}

// What is copied in belongs to the container's user if that is asked for and
// there is one, and otherwise to whom the archive says.
func TestCopyOwner(t *testing.T) {
	b := open(t)
	for user, want := range map[string]string{"": "1005:1006\n", "7:8": "7:8\n"} {
		c := b.create(t, "stat -c %u:%g /tmp/f", func(q *Request) { q.Config.User = user })
		if err := b.CopyIn(t.Context(), c.Name, "/tmp", packed(t, tar.Header{Name: "f", Mode: 0o644, Uid: 1005, Gid: 1006}), false, true); err != nil {
			t.Fatal(err)
		}
		if err := b.Start(t.Context(), c.Name); err != nil {
			t.Fatal(err)
		}
		b.until(t, c.Name, "the end", isExited)
		if got, _ := b.output(t, c); got != want {
			t.Errorf("user %q: %q, want %q", user, got, want)
		}
	}
}

func TestCopyRefusals(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	b, list := states(t, `mkdir /w; echo f > /w/f; ln -s `+outside+` /w/trap; ln -s / /w/root`)
	for state := range list {
		in := func(path string, r io.Reader) error { return b.CopyIn(t.Context(), state, path, r, true, false) }
		_, err := b.PathStat(t.Context(), state, "/no/such")
		for _, c := range []struct {
			err  error
			kind error
			text string
		}{
			{err, linkspan.ErrNotFound, "Could not find the file /no/such in container " + state},
			{in("/no/such", packed(t)), linkspan.ErrNotFound, "Could not find the file /no/such in container " + state},
			{in("/w/f", packed(t)), linkspan.ErrInvalid, "extraction point is not a directory"},
			{in("/w", packed(t, tar.Header{Name: "f", Typeflag: tar.TypeDir})), linkspan.ErrInvalid, "cannot overwrite non-directory"},
			{in("/w", packed(t, tar.Header{Name: "../../x"})), linkspan.ErrInvalid, "unpacking archive: "},
			{in("/w", strings.NewReader(strings.Repeat("nonsense", 200))), linkspan.ErrInvalid, "unpacking archive: "},
		} {
			if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.text) {
				t.Errorf("%s: %v, want %s", state, c.err, c.text)
			}
		}
		// Links lead to places of the container, whatever they say.
		if err := in("/w/root", packed(t, tar.Header{Name: "tmp/linkspan-escaped"})); err != nil {
			t.Error(state, err)
		}
		if err := in("/w", packed(t, tar.Header{Name: "evil", Typeflag: tar.TypeSymlink, Linkname: outside}, tar.Header{Name: "evil/x"})); err == nil {
			t.Log("through a link: taken, within the container")
		}
		for _, path := range []string{outside, "/tmp/linkspan-escaped"} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("%s: %s is on the host: %v", state, path, err)
			}
		}
	}
}

func TestReadonlyRootRefusesCopies(t *testing.T) {
	b := open(t)
	c := b.create(t, "true", binds("vol:/v"), func(q *Request) { q.HostConfig.ReadonlyRootfs = true })
	if err := b.CopyIn(t.Context(), c.Name, "/tmp", packed(t, tar.Header{Name: "f"}), false, false); !errors.Is(err, linkspan.ErrForbidden) || !strings.Contains(err.Error(), "container rootfs is marked read-only") {
		t.Error(err)
	}
	if err := b.CopyIn(t.Context(), c.Name, "/v", packed(t, tar.Header{Name: "f"}), false, false); err != nil {
		t.Error(err)
	}
	if got := b.copied(t, c, "/v"); got["v/f"] == "" {
		t.Errorf("%q", got)
	}
	// Not even by a link that leads out of the volume.
	said(t, b, "ln -s /tmp /v/out", binds("vol:/v"))
	if err := b.CopyIn(t.Context(), c.Name, "/v/out", packed(t, tar.Header{Name: "f"}), false, false); !errors.Is(err, linkspan.ErrForbidden) {
		t.Error(err)
	}
}

func TestChangesExportAndLayer(t *testing.T) {
	b := open(t)
	root, host := tree(t)
	for _, file := range []string{"data/kept", "data/gone", "data/sub/x", "empty/y"} {
		if err := os.WriteFile(filepath.Join(root, file), []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := b.start(t, `rm /data/gone; echo new > /data/new; echo more >> /data/kept; rm -r /empty; mkdir /empty; echo z > /empty/z; touch /etc/mine; echo ready; exec sleep 3600`, host)
	b.untilReady(t, c)
	check := func(state string) {
		t.Helper()
		list, err := b.Changes(t.Context(), c.Name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, change := range list {
			if !slices.ContainsFunc(c.Mounts, func(m Mount) bool { return m.Destination == change.Path }) {
				got = append(got, change.Kind.String()+" "+change.Path)
			}
		}
		want := []string{"C /data", "D /data/gone", "C /data/kept", "A /data/new", "C /empty", "D /empty/y", "A /empty/z", "C /etc", "A /etc/mine"}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", state, got, want)
		}
		var out bytes.Buffer
		if err := b.Export(t.Context(), c.Name, func() io.Writer { return &out }); err != nil {
			t.Fatal(err)
		}
		whole := names(t, out.Bytes())
		if whole["data/kept"] != "data/keptmore\n" || whole["data/sub/x"] == "" || whole["empty/z"] != "z\n" || whole["data/gone"] != "" || whole["empty/y"] != "" {
			t.Errorf("%s: %q", state, whole)
		}
		for name := range whole {
			if strings.HasPrefix(name, "proc/1") || strings.HasPrefix(name, "usr/b") {
				t.Fatalf("%s: %s is exported, and only mounted there", state, name)
			}
		}
	}
	check("running")
	var layer bytes.Buffer
	if err := b.Layer(t.Context(), c.Name, &layer); err != nil {
		t.Fatal(err)
	}
	got := names(t, layer.Bytes())
	for name, want := range map[string]string{"data/.wh.gone": "", "data/new": "new\n", "empty/.wh..wh..opq": ""} {
		if text, ok := got[name]; !ok || text != want {
			t.Errorf("%s is missing in %q", name, got)
		}
	}
	if err := b.Kill(t.Context(), c.Name, "KILL"); err != nil {
		t.Fatal(err)
	}
	b.wait(t, c)
	check("stopped")
}
