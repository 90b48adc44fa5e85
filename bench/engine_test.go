package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

// engine is a daemon on a machine of its own: ours, or Docker's.
type engine struct {
	machine *nstest.Machine
	dir     string
	daemon  *exec.Cmd
	client  *http.Client
	log     bytes.Buffer
}

// object is JSON.
type object map[string]any

// machines makes all machines of a case before anything runs on one of them: each
// looks, when it goes, at what has come since it was made.
func machines(t *testing.T, count int) []*nstest.Machine {
	t.Helper()
	all := make([]*nstest.Machine, count)
	for i := range all {
		all[i] = nstest.New(t)
	}
	return all
}

// start starts our daemon. It is gone, and all that it made, when the test ends.
func start(t *testing.T, m *nstest.Machine, flags ...string) *engine {
	t.Helper()
	e := newEngine(t, m)
	none := filepath.Join(e.dir, "none.json")
	must(t, os.WriteFile(none, []byte("{}"), 0o600))
	flags = append([]string{
		"../bin/linkspan", "daemon", "-H", "unix://" + e.socket(), "--data-root", e.dir + "/data", "--exec-root", e.dir + "/exec", "--config-file", none,
	}, flags...)
	e.launch(t, flags...)
	t.Cleanup(func() {
		e.clear(t)
		e.stop(t)
		uninstall := e.command(append(flags, "--uninstall")...)
		if out, err := uninstall.CombinedOutput(); err != nil {
			t.Errorf("uninstalling: %v\n%s", err, out)
		}
	})
	return e
}

func newEngine(t *testing.T, m *nstest.Machine) *engine {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "bench") //nolint:usetesting // short: a socket's path has at most 107 bytes
	must(t, err)
	e := &engine{machine: m, dir: dir}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.socket())
	}
	e.client = &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 128}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", e.log.String())
		}
		e.client.CloseIdleConnections()
		os.RemoveAll(dir) //nolint:errcheck // it is on a tmpfs of the test's own
	})
	return e
}

func (e *engine) socket() string { return e.dir + "/s" }

func (e *engine) command(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--net=" + kernel.Pin(e.machine.Name())}, args...)...)
	cmd.Env = append(os.Environ(), "LINKSPAN_HOST=unix://"+e.socket(), "DOCKER_HOST=unix://"+e.socket())
	return cmd
}

func (e *engine) launch(t *testing.T, args ...string) {
	t.Helper()
	e.daemon = e.command(args...)
	e.daemon.Stdout, e.daemon.Stderr = &e.log, &e.log
	must(t, e.daemon.Start())
	if !nstest.Until(60*time.Second, func() bool { return e.try(http.MethodGet, "/_ping", nil, nil) == nil }) {
		t.Fatalf("%s does not answer", args[0])
	}
	e.load(t)
}

func (e *engine) stop(t *testing.T) {
	t.Helper()
	must(t, e.daemon.Process.Signal(os.Interrupt))
	must(t, e.daemon.Wait())
}

// load makes the image box: busybox, and nothing else.
func (e *engine) load(t *testing.T) {
	t.Helper()
	root := filepath.Join(e.dir, "root", "bin")
	must(t, os.MkdirAll(root, 0o755))
	out, err := exec.Command("sh", "-euc", "cp /bin/busybox "+root+"; for i in sh sleep true; do ln -sf busybox "+root+"/$i; done; tar -C "+root+"/.. -c .").Output()
	must(t, err)
	must(t, e.try(http.MethodPost, "/images/create?fromSrc=-&repo=box", out, nil))
}

// call is a request that must succeed.
func (e *engine) call(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	must(t, e.try(method, path, body, answer))
}

func (e *engine) try(method, path string, body, answer any) error {
	text, raw := body.([]byte)
	kind := "application/x-tar"
	if !raw && body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
		kind = "application/json"
	}
	request, err := http.NewRequest(method, "http://engine/v1.41"+path, bytes.NewReader(text)) //nolint:noctx // ends with the daemon
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", kind)
	response, err := e.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	said, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, said)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(said, answer)
}

// network makes a bridge network; a second subnet is an IPv6 one.
func (e *engine) network(t *testing.T, name string, subnets ...string) {
	t.Helper()
	var pools []object
	for _, subnet := range subnets {
		pools = append(pools, object{"Subnet": subnet})
	}
	e.call(t, http.MethodPost, "/networks/create", object{
		"Name": name, "Driver": "bridge", "EnableIPv6": len(subnets) > 1, "IPAM": object{"Config": pools},
	}, nil)
}

// create makes a container that sleeps, with ports such as 8080:80/tcp.
func (e *engine) create(t *testing.T, name, network string, ports ...string) string {
	t.Helper()
	return e.createTo(t, name, network, []string{"sleep", "100000"}, ports...)
}

func (e *engine) createTo(t *testing.T, name, network string, command []string, ports ...string) string {
	t.Helper()
	bindings, exposed := make(map[string][]object), object{}
	for _, p := range ports {
		outer, inner, _ := strings.Cut(p, ":")
		bindings[inner], exposed[inner] = []object{{"HostPort": outer}}, object{}
	}
	var made struct{ ID string }
	e.call(t, http.MethodPost, "/containers/create?name="+name, object{
		"Image": "box", "Cmd": command, "ExposedPorts": exposed,
		"HostConfig": object{"NetworkMode": network, "PortBindings": bindings},
	}, &made)
	return made.ID
}

func (e *engine) start(t *testing.T, id string) {
	t.Helper()
	e.call(t, http.MethodPost, "/containers/"+id+"/start", nil, nil)
}

func (e *engine) remove(t *testing.T, id string) {
	t.Helper()
	e.call(t, http.MethodDelete, "/containers/"+id+"?force=1&v=1", nil, nil)
}

// up is a container that runs on the network lab.
func (e *engine) up(t *testing.T, name string, ports ...string) string {
	t.Helper()
	id := e.create(t, name, "lab", ports...)
	e.start(t, id)
	return id
}

// many starts containers, a few at a time.
func (e *engine) many(t *testing.T, prefix, network string, count int) {
	t.Helper()
	var all sync.WaitGroup
	next := make(chan int)
	for range 4 {
		all.Go(func() {
			for i := range next {
				var made struct{ ID string }
				err := e.try(http.MethodPost, fmt.Sprintf("/containers/create?name=%s%d", prefix, i), object{
					"Image": "box", "Cmd": []string{"sleep", "100000"}, "HostConfig": object{"NetworkMode": network},
				}, &made)
				if err == nil {
					err = e.try(http.MethodPost, "/containers/"+made.ID+"/start", nil, nil)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// clear removes all containers and networks.
func (e *engine) clear(t *testing.T) {
	t.Helper()
	e.clearContainers(t)
	var networks []struct{ ID, Name string }
	e.call(t, http.MethodGet, "/networks", nil, &networks)
	for _, n := range networks {
		if n.Name != "bridge" && n.Name != "host" && n.Name != "none" {
			e.call(t, http.MethodDelete, "/networks/"+n.ID, nil, nil)
		}
	}
}

func (e *engine) clearContainers(t *testing.T) {
	t.Helper()
	var list []struct{ ID string }
	e.call(t, http.MethodGet, "/containers/json?all=1", nil, &list)
	var all sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, c := range list {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := e.try(http.MethodDelete, "/containers/"+c.ID+"?force=1", nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// pid is a container's first process, as the machine sees it.
func (e *engine) pid(t *testing.T, id string) int {
	t.Helper()
	var c struct{ State struct{ Pid int } }
	e.call(t, http.MethodGet, "/containers/"+id+"/json", nil, &c)
	return c.State.Pid
}

// inside opens the network namespace of a container.
func (e *engine) inside(t *testing.T, id string) *kernel.Host {
	t.Helper()
	h, err := kernel.OpenAt(fmt.Sprintf("/proc/%d/ns/net", e.pid(t, id)))
	must(t, err)
	t.Cleanup(func() { h.Close() }) //nolint:errcheck // nothing is lost
	return h
}

// address is what a container has on a network.
func (e *engine) address(t *testing.T, id, network string, ipv6 bool) string {
	t.Helper()
	var c struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, GlobalIPv6Address string }
		}
	}
	e.call(t, http.MethodGet, "/containers/"+id+"/json", nil, &c)
	n := c.NetworkSettings.Networks[network]
	if ipv6 {
		return n.GlobalIPv6Address
	}
	return n.IPAddress
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
