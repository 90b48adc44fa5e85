package plugin_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/plugintest"
)

// forgetful is a plugin that wants to hear "Again" first whenever it was started.
type forgetful struct {
	mu    sync.Mutex
	calls []string
}

func (f *forgetful) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if call, isDriver := strings.CutPrefix(r.URL.Path, "/NetworkDriver."); isDriver && call != "GetCapabilities" {
		f.mu.Lock()
		f.calls = append(f.calls, call)
		f.mu.Unlock()
	}
	network(scripted{"NetworkDriver.Again": says(200, "{}"), "NetworkDriver.Leave": says(200, "{}")}).ServeHTTP(w, r)
}

func (f *forgetful) heard() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// Whatever was started again is met before any other call reaches it, by many at
// once, on a unix socket as on TCP, where only a failure shows that it was away.
func TestMeetComesFirst(t *testing.T) {
	for _, at := range []string{"unix", "tcp"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			plugged := &forgetful{}
			listen := func(address string) (string, func()) {
				if at == "unix" {
					return "", plugintest.Serve(t, filepath.Join(dir, "lab.sock"), plugintest.HTTP{Handler: plugged}).Stop
				}
				l, err := net.Listen("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				server := &http.Server{Handler: plugged} //nolint:gosec // a test's
				go server.Serve(l)                       //nolint:errcheck // it ends with the test
				t.Cleanup(func() { server.Close() })
				if err := os.WriteFile(filepath.Join(dir, "lab.spec"), []byte("tcp://"+l.Addr().String()), 0o600); err != nil {
					t.Fatal(err)
				}
				return l.Addr().String(), func() { server.Close() }
			}
			var d *plugin.Directory
			d = directory(t, plugin.Options{Dirs: []string{dir}, Patience: 200 * time.Millisecond, Meet: func(ctx context.Context, name string) {
				if err := d.Line(name).Call(ctx, "NetworkDriver.Again", nil, nil); err != nil {
					t.Error(err)
				}
				d.Line(name).Note("again")
			}})
			leave := func() {
				if err := d.Line("lab").Call(t.Context(), "NetworkDriver.Leave", nil, nil); err != nil {
					t.Error(err)
				}
			}
			address, stop := listen("127.83.0.1:0") // nobody else is there
			for round := range 3 {
				var all sync.WaitGroup
				for range 5 {
					all.Go(leave)
				}
				all.Wait()
				if got, want := plugged.heard(), []string{"Again", "Leave", "Leave", "Leave", "Leave", "Leave"}; !slices.Equal(got, want) {
					t.Errorf("round %d: the plugin heard %v, want %v", round, got, want)
				}
				if !d.Line("lab").Heard("again") || d.Line("lab").Missed("again") {
					t.Error("it passes for a process that was not told")
				}
				leave()
				if got := plugged.heard(); !slices.Equal(got, []string{"Leave"}) {
					t.Errorf("round %d: met once more: %v", round, got)
				}
				if at == "unix" { // its inode must not be the next one's: all are of one process here
					if err := os.Link(filepath.Join(dir, "lab.sock"), filepath.Join(dir, fmt.Sprint("old", round))); err != nil {
						t.Fatal(err)
					}
				}
				stop()
				if at == "tcp" { // somebody notices that it is away
					if d.Line("lab").Call(t.Context(), "NetworkDriver.Leave", nil, nil) == nil {
						t.Error("a plugin that is away answers")
					}
				}
				address, stop = listen(address)
				if !nstest.Until(5*time.Second, func() bool { return d.Watch("lab") == nil }) {
					t.Fatal("the plugin is not found again")
				}
				if at == "tcp" && !d.Line("lab").Missed("again") {
					t.Error("it passes for the process that was told")
				}
			}
		})
	}
}
