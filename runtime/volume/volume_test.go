package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
)

func open(t *testing.T, root string, users map[string][]linkspan.ID) (*Store, *[]string) {
	t.Helper()
	var events []string
	s, err := Open(Options{
		DataRoot: root, Users: func() map[string][]linkspan.ID { return users }, Logf: t.Logf,
		Events: func(e Event) { events = append(events, e.Action+" "+e.Name) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, &events
}

func TestVolumes(t *testing.T) {
	root := t.TempDir()
	s, events := open(t, root, map[string][]linkspan.ID{"used": {"cafe"}})
	for _, q := range []Request{{Name: "data", Labels: map[string]string{"a": "b"}}, {Name: "used"}, {Name: "data"}, {}} {
		if _, err := s.Create(q); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.List()) != 3 || len(*events) != 3 {
		t.Errorf("%v %v", s.List(), *events)
	}
	v, err := s.Get("data")
	if err != nil || v.Path != filepath.Join(root, "volumes", "data", "_data") || v.Labels["a"] != "b" || v.Anonymous() {
		t.Errorf("%+v %v", v, err)
	}
	if err := os.WriteFile(filepath.Join(v.Path, "f"), []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, root, map[string][]linkspan.ID{"used": {"cafe"}})
	if len(s.List()) != 3 {
		t.Errorf("%v after a restart", s.List())
	}
	if size, err := v.Size(); err != nil || size != 5 {
		t.Error(size, err)
	}
	names, reclaimed, err := s.Prune(func(v Volume) bool { return !v.Anonymous() })
	if err != nil || len(names) != 1 || names[0] != "data" || reclaimed != 5 {
		t.Error(names, reclaimed, err)
	}
	if err := s.Discard("used", "cafe"); err != nil {
		t.Error(err)
	}
	if err := s.Discard("used", "cafe"); err != nil {
		t.Error("gone already:", err)
	}
	// The files were removed by hand: the record can follow.
	v, err = s.Create(Request{Name: "shell"})
	if err == nil {
		err = os.RemoveAll(filepath.Dir(v.Path))
	}
	if err == nil {
		err = s.Remove("shell")
	}
	if err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "volumes")); err != nil || len(left) != 1 {
		t.Error(left, err)
	}
}

func TestRefusals(t *testing.T) {
	s, _ := open(t, t.TempDir(), map[string][]linkspan.ID{"used": {"cafe", "babe"}})
	if _, err := s.Create(Request{Name: "used"}); err != nil {
		t.Fatal(err)
	}
	_, release, err := s.Use(Request{Name: "held"})
	if err != nil {
		t.Fatal(err)
	}
	create := func(q Request) error { _, err := s.Create(q); return err }
	for _, c := range []struct {
		err  error
		kind error
		text string
	}{
		{create(Request{Name: "../x"}), linkspan.ErrInvalid, `"../x" includes invalid characters for a local volume name`},
		{create(Request{Name: ".."}), linkspan.ErrInvalid, "includes invalid characters"},
		{create(Request{Name: "x"}), linkspan.ErrInvalid, "includes invalid characters"},
		{create(Request{Name: strings.Repeat("x", 300)}), linkspan.ErrInvalid, "includes invalid characters"},
		{create(Request{Name: "ok", Driver: "nfs"}), linkspan.ErrNotFound, `plugin "nfs" not found`},
		{create(Request{Name: "ok", Options: map[string]string{"what": "x"}}), linkspan.ErrInvalid, `invalid option: "what"`},
		{create(Request{Name: "ok", Options: map[string]string{"type": "nfs", "device": ":/x"}}), linkspan.ErrNotImplemented, `a volume of type "nfs" is not supported`},
		{create(Request{Name: "ok", Options: map[string]string{"o": "bind", "device": "x"}}), linkspan.ErrInvalid, "must be an absolute path"},
		{create(Request{Name: "used", Options: map[string]string{"o": "bind", "device": "/x"}}), linkspan.ErrConflict, "with other options"},
		{s.Remove("nosuch"), linkspan.ErrNotFound, "get nosuch: no such volume"},
		{s.Remove("used"), linkspan.ErrConflict, "remove used: volume is in use - [cafe, babe]"},
		{s.Remove("held"), linkspan.ErrConflict, "remove held: volume is in use by a container that is being created"},
	} {
		if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%v, want %s", c.err, c.text)
		}
	}
	release()
	if err := s.Remove("held"); err != nil {
		t.Error(err)
	}
}
