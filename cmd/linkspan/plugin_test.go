package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin/plugintest"
)

// get reads a page of the API, as a plugin does.
func (s *story) get(path string) (string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, "s"))
		},
	}}
	response, err := client.Get("http://linkspan" + path) //nolint:noctx // it has a timeout
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, response.Status, text)
	}
	return string(text), err
}

// A daemon, a plugin, and the command line: it is listed, used, lost, and found
// again; meanwhile everything else works.
func TestPluginStory(t *testing.T) {
	s := newStory(t)
	driver := plugintest.NewNetwork(s.machine)
	socket := "/run/docker/plugins/lab-driver.sock"
	server := plugintest.Serve(t, socket, driver.Handler())
	s.start()
	has := func(out string, wanted ...string) {
		t.Helper()
		for _, want := range wanted {
			if !strings.Contains(out, want) {
				t.Errorf("the output lacks %q:\n%s", want, out)
			}
		}
	}
	has(s.do("plugin", "ls"), "lab-driver", "NetworkDriver", "ready", socket)
	has(s.do("info"), "lab-driver")
	if out, err := s.try("network", "create", "-d", "no-such-plugin", "x"); err == nil || !strings.Contains(out, `plugin "no-such-plugin" not found`) {
		t.Errorf("an unknown driver: %v %s", err, out)
	}
	has(s.do("explain", "network", "create", "-d", "lab-driver", "--subnet", "10.77.0.0/24", "lab"),
		"curl -fsS --unix-socket '"+socket+"'", "NetworkDriver.CreateNetwork")
	s.do("network", "create", "-d", "lab-driver", "--subnet", "10.77.0.0/24", "lab")
	has(s.do("explain", "run", "--network", "lab", "--rootfs", "/", "true"), "NetworkDriver.CreateEndpoint", "NetworkDriver.Join")

	// The plugin calls back in the middle of its calls.
	called := make(chan error, 2)
	driver.SetHook(func(call string) error {
		if call != "CreateEndpoint" && call != "Join" {
			return nil
		}
		err := func() error {
			network, err := s.get("/networks/lab")
			if err == nil && !strings.Contains(network, `"web"`) {
				err = fmt.Errorf("the network does not list the endpoint: %s", network)
			}
			if err == nil {
				_, err = s.get("/v1.24/containers/web/json")
			}
			return err
		}()
		called <- err
		return nil
	})
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "sleep", "1000")
	for range 2 {
		if err := <-called; err != nil {
			t.Error(err)
		}
	}
	driver.SetHook(nil)
	has(s.do("exec", "web", "ip", "addr", "show", "eth0"), "10.77.0.2/24")
	has(s.do("plugin", "inspect", "lab-driver"), `"Networks": [`, `"lab"`)

	// It goes away. The daemon starts without it, and is at once of use.
	server.Stop()
	s.end(os.Interrupt)
	begin := time.Now()
	s.start()
	has(s.do("ps"), "web")
	s.do("run", "--rm", "--rootfs", "/", "true")
	t.Logf("of use %s after its start", time.Since(begin))
	degraded := func() string { return s.do("network", "inspect", "lab") }
	if !nstest.Until(20*time.Second, func() bool { return strings.Contains(degraded(), `"degraded"`) }) {
		t.Errorf("not degraded: %s", degraded())
	}
	if strings.Contains(s.do("network", "inspect", "bridge"), "degraded") {
		t.Error("the default network is degraded, too")
	}
	has(s.do("plugin", "ls"), "lab-driver", "away")
	if out, err := s.try("run", "--rm", "--network", "lab", "--rootfs", "/", "true"); err == nil || !strings.Contains(out, "lab-driver") {
		t.Errorf("running on a degraded network: %v %s", err, out)
	}
	s.do("rm", "-f", "web")
	has(s.do("plugin", "inspect", "lab-driver"), "endpoint of container web")

	// It comes back: what was owed to it is paid.
	plugintest.Serve(t, socket, driver.Handler())
	if !nstest.Until(20*time.Second, func() bool { return !strings.Contains(degraded(), "degraded") && len(driver.Left()) == 1 }) {
		t.Errorf("not healed: %s\nleft with the plugin: %v", degraded(), driver.Left())
	}
	s.do("run", "--rm", "--network", "lab", "--rootfs", "/", "true")
	s.do("network", "rm", "lab")
	if left := driver.Left(); len(left) > 0 || driver.Links() != "" {
		t.Errorf("left with the plugin: %v %s", left, driver.Links())
	}
	s.leave()
}

// A plugin that accepts calls and never answers holds up nobody but those who
// want something of it.
func TestPluginHangs(t *testing.T) {
	s := newStory(t)
	driver := plugintest.NewNetwork(s.machine)
	socket := "/run/docker/plugins/lab-driver.sock"
	server := plugintest.Serve(t, socket, driver.Handler())
	s.start("--plugin-timeout", "2s")
	s.do("network", "create", "-d", "lab-driver", "lab")
	s.end(os.Interrupt)
	server.Stop()
	release := make(chan struct{})
	hanging := plugintest.Serve(t, socket, plugintest.HTTP{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})})
	s.start("--plugin-timeout", "2s")
	s.do("run", "--rm", "--rootfs", "/", "true")
	if out, err := s.try("run", "--rm", "--network", "lab", "--rootfs", "/", "true"); err == nil || !strings.Contains(out, "lab-driver") {
		t.Errorf("running on a hanging plugin's network: %v %s", err, out)
	}
	close(release)
	hanging.Stop()
	plugintest.Serve(t, socket, driver.Handler())
	if !nstest.Until(30*time.Second, func() bool {
		_, err := s.try("run", "--rm", "--network", "lab", "--rootfs", "/", "true")
		return err == nil
	}) {
		out, err := s.try("run", "--rm", "--network", "lab", "--rootfs", "/", "true")
		t.Errorf("not healed: %v %s", err, out)
	}
	s.do("network", "rm", "lab")
	s.leave()
}

// A plugin that is gone for good keeps nothing of ours for ever.
func TestPluginForgetStory(t *testing.T) {
	s := newStory(t)
	driver := plugintest.NewNetwork(s.machine)
	server := plugintest.Serve(t, "/run/docker/plugins/lab-driver.sock", driver.Handler())
	s.start()
	s.do("network", "create", "-d", "lab-driver", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "sleep", "1000")
	if out, err := s.try("plugin", "forget", "lab-driver"); err == nil || !strings.Contains(out, "nothing waits") {
		t.Errorf("forgetting a plugin that is there: %v %s", err, out)
	}
	server.Stop()
	s.do("rm", "-f", "web")
	s.do("network", "rm", "lab") // for all but the plugin it is gone
	if out := s.do("network", "ls"); strings.Contains(out, "lab") {
		t.Errorf("the network is still there: %s", out)
	}
	if out := s.do("plugin", "forget", "lab-driver"); !strings.Contains(out, "endpoint of container web: gone, and plugin lab-driver was not told") || !strings.Contains(out, "network lab: gone") {
		t.Errorf("forgetting: %s", out)
	}
	if out := s.do("plugin", "ls", "-q"); strings.Contains(out, "lab-driver") {
		t.Errorf("the plugin is still there: %s", out)
	}
	s.machine.Sh(t, "for l in /sys/class/net/pl*; do test ! -e $l || ip link del ${l##*/} || true; done")
	s.leave()
}
