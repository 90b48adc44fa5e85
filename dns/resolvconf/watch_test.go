package resolvconf

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	etc, run := filepath.Join(root, "etc"), filepath.Join(root, "run")
	path, target := filepath.Join(etc, "resolv.conf"), filepath.Join(run, "stub.conf")
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.Mkdir(etc, 0o755))
	do(os.Mkdir(run, 0o755))
	do(os.WriteFile(path, []byte("nameserver 192.0.2.1\n"), 0o644))
	seen := make(chan struct{}, 100)
	stop, err := Watch(t.Context(), func() { seen <- struct{}{} }, path, filepath.Join(root, "nowhere", "resolv.conf"))
	do(err)
	for _, change := range []struct {
		name string
		do   func() error
	}{
		{"written in place", func() error { return os.WriteFile(path, []byte("nameserver 192.0.2.2\n"), 0o644) }},
		{"replaced", func() error {
			do(os.WriteFile(path+".new", []byte("nameserver 192.0.2.3\n"), 0o644))
			return os.Rename(path+".new", path)
		}},
		{"written after it was replaced", func() error { return os.WriteFile(path, nil, 0o644) }},
		{"removed", func() error { return os.Remove(path) }},
		{"made a link to nothing", func() error { return os.Symlink("../run/stub.conf", path) }},
		{"target made", func() error { return os.WriteFile(target, []byte("nameserver 192.0.2.4\n"), 0o644) }},
		{"target replaced", func() error {
			do(os.WriteFile(target+".new", []byte("nameserver 192.0.2.5\n"), 0o644))
			return os.Rename(target+".new", target)
		}},
		{"made a file again", func() error {
			do(os.WriteFile(path+".new", nil, 0o644))
			return os.Rename(path+".new", path)
		}},
	} {
		for len(seen) > 0 {
			<-seen
		}
		do(change.do())
		select {
		case <-seen:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: not noticed", change.name)
		}
		// A second notice of one change must not pass for that of the next.
		for settled := false; !settled; {
			select {
			case <-seen:
			case <-time.After(5 * quiet):
				settled = true
			}
		}
	}
	stop()
	do(os.WriteFile(path, nil, 0o644))
	select {
	case <-seen:
		t.Error("noticed after it was stopped")
	case <-time.After(5 * quiet):
	}
}
