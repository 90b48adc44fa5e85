package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/bridge"
	joined "github.com/linkspan/linkspan/drivers/container"
	"github.com/linkspan/linkspan/drivers/host"
	"github.com/linkspan/linkspan/drivers/none"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/runtime/image"
	"github.com/linkspan/linkspan/store"
)

// engine is a whole daemon on a machine of its own, and the stock docker
// command to talk to it.
type engine struct {
	t      *testing.T
	socket string
	home   string
	on     *nstest.Machine
}

// shim builds the launcher's other half.
func shim(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "linkspan-shim")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../cmd/linkspan-shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the shim: %v\n%s", err, out)
	}
	return path
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	shim := shim(t)
	m := nstest.New(t)
	dir := t.TempDir()
	data, live := filepath.Join(dir, "data"), filepath.Join(dir, "exec")
	epoch, err := m.Host().Epoch()
	must(t, err)
	rows, _, err := store.Open(store.Options{
		DataRoot: data, ExecRoot: live, Epoch: epoch, Codec: op.NewCodec(nftables.Kinds()), Quarantine: func(err error) { t.Error(err) },
	})
	must(t, err)
	t.Cleanup(func() { must(t, rows.Close()) })
	events := NewEvents()
	networks := controller.New(controller.Options{
		Host: m.Host(), Store: rows, Firewall: nftables.Backend{}, ExecRoot: live, Events: events.Network, Logf: t.Logf,
		Drivers: map[string]drivers.Driver{"bridge": bridge.Driver{}, "host": host.Driver{}, "null": none.Driver{}, "container": joined.Driver{}},
		Defaults: controller.Defaults{
			Bases4: ipam.DefaultBases(), Bases6: ipam.DefaultBases6("test"), Options: bridge.DefaultOptions("", 0, true),
		},
	})
	must(t, networks.Recover(t.Context()))
	t.Cleanup(func() {
		must(t, networks.Uninstall(context.Background()))
		networks.Close()
	})
	containers, err := runtime.New(runtime.Options{
		DataRoot: data, ExecRoot: live, Networks: Networks{networks}, Links: Networks{networks}, Events: events.Container, Logf: t.Logf, Shim: shim,
	})
	must(t, err)
	t.Cleanup(func() { must(t, containers.Close()) })
	images, err := image.Open(image.Options{DataRoot: data, InUse: func() []image.User { return nil }, Events: events.Image, Logf: t.Logf})
	must(t, err)
	s := New(Options{
		Networks: networks, Containers: containers, Images: images, Volumes: containers.Volumes(), Events: events, Logf: t.Logf,
		About: About{ID: "test", Version: "0.1", DataRoot: data, ExecRoot: live, NetworkDrivers: []string{"bridge", "host", "null"}, FirewallDriver: "nftables"},
	})
	e := &engine{t: t, socket: filepath.Join(dir, "s"), home: dir, on: m}
	listener, err := Listen(t.Context(), "unix://"+e.socket, nil)
	must(t, err)
	served := make(chan error)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		must(t, errors.Join(s.Shutdown(ctx), <-served))
		for _, c := range containers.List() {
			must(t, containers.Remove(ctx, string(c.ID), runtime.RemoveOptions{Force: true}))
		}
		for _, n := range networks.Networks() {
			if !prunable(n.Name) {
				continue
			}
			must(t, networks.RemoveNetwork(ctx, n.Name))
		}
	})
	return e
}

func prunable(name string) bool { return name != "bridge" && name != "host" && name != "none" }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// docker runs the stock command, and returns its output and exit status.
func (e *engine) docker(stdin, line string) (stdout, stderr string, status int) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "docker "+strings.ReplaceAll(line, "RUN", "run --annotation linkspan.rootfs=/"))
	cmd.Env = []string{"DOCKER_HOST=unix://" + e.socket, "HOME=" + e.home, "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		e.t.Fatalf("docker %s: %v", line, err)
	}
	if ctx.Err() != nil {
		e.t.Fatalf("docker %s: did not end; %s%s", line, &out, &complaints)
	}
	return out.String(), complaints.String(), cmd.ProcessState.ExitCode()
}

// step is one line for the docker command: the status that it exits with, and
// regular expressions for what it prints.
type step struct {
	line   string
	status int
	want   string
}

func (e *engine) play(steps []step) {
	e.t.Helper()
	for _, s := range steps {
		stdin, line, given := strings.Cut(s.line, " | ")
		if !given {
			stdin, line = "", s.line
		}
		stdout, stderr, status := e.docker(stdin, line)
		text := stdout + stderr
		if status != s.status || !regexp.MustCompile(`(?s)^`+s.want+`$`).MatchString(strings.TrimRight(text, "\r\n")) {
			e.t.Errorf("docker %s\nexit status %d, want %d; output\n%s\nwant\n%s", s.line, status, s.status, text, s.want)
		}
	}
}

// raw makes a request that the docker command has no word for.
func (e *engine) raw(method, path, body string) (int, string) {
	e.t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(e.t.Context(), method, "http://d"+path, strings.NewReader(body))
	must(e.t, err)
	request.Header.Set("Content-Type", "application/json")
	answer, err := (&http.Client{Transport: transport}).Do(request)
	must(e.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(e.t, err)
	return answer.StatusCode, string(text)
}

const anyID = `[0-9a-f]{64}`

func TestDockerNetworks(t *testing.T) {
	newEngine(t).play([]step{
		{`version --format '{{.Server.Version}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}}'`, 0, `0\.1 1\.56 1\.24`},
		{`info --format '{{.ServerVersion}} {{.Driver}} {{.Swarm.LocalNodeState}} {{.Plugins.Network}}'`, 0, `0\.1 overlay2 inactive \[bridge host null\]`},
		{`info`, 0, `.*Server Version: 0\.1.*Network: bridge host null.*`},
		{`network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'`, 0, "bridge bridge local\nhost host local\nnone null local"},
		{`network create --subnet 10.88.0.0/24 --gateway 10.88.0.9 --label a=b -o com.docker.network.driver.mtu=1400 lab`, 0, anyID},
		{`network create --subnet 10.88.0.0/25 other`, 1, `Error response from daemon: invalid pool request: Pool overlaps.*network lab.*`},
		{`network create lab`, 1, `Error response from daemon: network with name lab already exists`},
		{`network create -d nosuch n`, 1, `Error response from daemon: plugin "nosuch" not found`},
		{`network create -d host n`, 1, `Error response from daemon: only one instance.*`},
		{`network create bridge`, 1, `Error response from daemon: operation is not permitted on predefined bridge network ?`},
		{`network create --subnet 10.89.0.1/24 n`, 1, `Error response from daemon: invalid network config:\ninvalid subnet 10.89.0.1/24: it should be 10.89.0.0/24`},
		{`network inspect --format '{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}} {{.Labels}} {{.Options}} {{len .Containers}}' lab`, 0, `10.88.0.0/24 10.88.0.9 map\[a:b\] map\[com.docker.network.driver.mtu:1400\] 0`},
		{`network inspect nosuch`, 1, `\[\]\nError response from daemon: network nosuch not found`},
		{`network ls -q --no-trunc --filter name=^lab$`, 0, anyID},
		{`network ls --filter nosuch=x`, 1, `Error response from daemon: invalid filter 'nosuch'`},
		{`network create --label keep=1 kept`, 0, anyID},
		{`network prune -f --filter label!=keep`, 0, "Deleted Networks:\nlab"},
		{`network prune -f --filter until=1h`, 0, ""},
		{`network rm kept`, 0, "kept"},
		{`network rm kept`, 1, `Error response from daemon: network kept not found\nexit status 1`},
		{`network rm bridge`, 1, `Error response from daemon: bridge is a pre-defined network and cannot be removed\nexit status 1`},
		{`inspect nosuch`, 1, `\[\]\n.*[nN]o such object: nosuch`},
		{`images -q`, 0, ""},
		{`volume ls -q`, 0, ""},
		{`system df`, 0, `TYPE .*Containers +0 +0.*`},
		{`pull localhost:1/bb`, 1, `.*registry .* cannot be reached.*`},
		{`node ls`, 1, `Error response from daemon: This node is not a swarm manager.*`},
		{`run localhost:1/bb true`, 125, `Unable to find image 'localhost:1/bb:latest' locally\n.*registry .* cannot be reached.*`},
	})
}

func TestDockerContainers(t *testing.T) {
	e := newEngine(t)
	e.play([]step{
		{`network create --subnet 10.88.0.0/24 lab`, 0, anyID},
		{`network create --subnet 10.89.0.0/24 lab2`, 0, anyID},
		{`RUN --rm --network lab --ip 10.88.0.50 x ip -4 -o addr show eth0`, 0, `.*10\.88\.0\.50/24.*`},
		{`RUN --rm x sh -c 'echo out; echo err >&2; exit 42'`, 42, "out\nerr"},
		{`RUN --rm x nosuchcommand`, 127, `.*executable file not found in \$PATH.*`},
		{`RUN --rm x /etc/passwd`, 126, `.*permission denied.*`},
		{`RUN --rm --network nosuch x true`, 125, `.*network nosuch not found.*`},
		{`RUN --rm -p 8080:80 x true`, 0, ""},
		{`RUN --rm --network host -p 8080:80 x true`, 0, "WARNING: Published ports are discarded when using host network mode.*"},
		{`ps -aq`, 0, ""},
		{`hello | RUN --rm -i x cat`, 0, "hello"},
		{`RUN -d --name web --network lab --mac-address 02:42:0a:58:00:09 -l a=b x sleep 300`, 0, anyID},
		{`RUN --rm --name web x true`, 125, `.*Conflict\. The container name "/web" is already in use by container.*`},
		{`ps --format '{{.Image}} {{.Command}} {{.Names}} {{.State}} {{.Networks}} {{.Label "a"}}'`, 0, `x "sleep 300" web running lab b`},
		{`ps --format '{{.Status}}'`, 0, `Up .*`},
		{`inspect --format '{{.State.Status}} {{.Config.MacAddress}} {{.NetworkSettings.Networks.lab.IPAddress}} {{.NetworkSettings.Networks.lab.MacAddress}}' web`, 0, `running 02:42:0a:58:00:09 10\.88\.0\.2 02:42:0a:58:00:09`},
		{`network inspect --format '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' lab`, 0, `web 10\.88\.0\.2/24`},
		{`network rm lab`, 1, `Error response from daemon: error while removing network: network lab has active endpoints \(name:"web" id:"[0-9a-f]{12}"\)\nexit status 1`},
		{`network connect --ip 10.89.0.7 lab2 web`, 0, ""},
		{`exec web sh -c 'ip -4 -o addr show eth1; exit 9'`, 9, `.*10\.89\.0\.7/24.*`},
		{`exec web nosuchcommand`, 127, `.*executable file not found.*`},
		{`input | exec -i web cat`, 0, "input"},
		{`exec -d web true`, 0, ""},
		{`exec web sh -c 'echo out; exec >&- 2>&-; sleep 0.3; exit 8'`, 8, "out"},
		{`exec nosuch true`, 1, `Error response from daemon: No such container: nosuch`},
		{`network disconnect lab2 web`, 0, ""},
		{`network disconnect lab2 web`, 1, `Error response from daemon: container [0-9a-f]{64} is not connected to network lab2`},
		{`network connect lab web`, 1, `Error response from daemon: endpoint with name web already exists in network lab`},
		{`RUN --rm --network container:web x hostname`, 0, `[0-9a-f]{12}`},
		{`RUN --rm --network container:web x ip -4 -o addr show eth0`, 0, `.*10\.88\.0\.2/24.*`},
		{`RUN --rm --network container:web --hostname h x true`, 125, `.*conflicting options: hostname and the network mode.*`},
		{`rename web www`, 0, ""},
		{`network inspect --format '{{range .Containers}}{{.Name}}{{end}}' lab`, 0, `www`},
		{`RUN --rm --network lab x getent hosts www`, 0, `10\.88\.0\.2 .*`},
		{`top www`, 0, `UID .*PID.*sleep 300`},
		{`pause www`, 0, "www"},
		{`ps --format '{{.Status}}'`, 0, `Up .* \(Paused\)`},
		{`unpause www`, 0, "www"},
		{`restart -t 0 www`, 0, "www"},
		{`rm www`, 1, `.*container is running: stop the container before removing or force remove`},
		{`kill -s NOSUCH www`, 1, `.*[iI]nvalid signal: NOSUCH`},
		{`stop -t 0 www`, 0, "www"},
		{`stop -t 0 www`, 0, "www"},
		{`kill www`, 1, `.*is not running`},
		{`inspect --format '{{.State.Status}} {{.State.Running}} {{.State.Pid}} {{.NetworkSettings.SandboxKey}}' www`, 0, `exited false 0 `},
		{`wait www`, 0, `137`},
		{`rm www`, 0, "www"},
		{`RUN --name said x sh -c 'for i in 1 2 3; do echo line$i; done; sleep 0.1; echo oops >&2'`, 0, "line1\nline2\nline3\noops"},
		{`logs -n 2 said`, 0, "line3\noops"},
		{`logs -f said`, 0, "line1\nline2\nline3\noops"},
		{`logs nosuch`, 1, `Error response from daemon: No such container: nosuch`},
		{`start -a said`, 0, "line1\nline2\nline3\noops"},
		{`container prune -f`, 0, "Deleted Containers:\n" + anyID + ".*"},
		{`events --since 1h --until 0s --format '{{.Type}} {{.Action}}' --filter network=lab2`, 0, "network create\nnetwork connect\nnetwork disconnect"},
		{`network rm lab lab2`, 0, "lab\nlab2"},
	})
}

// Links of the default bridge: names for their targets, variables for who has them.
func TestDockerLinks(t *testing.T) {
	newEngine(t).play([]step{
		{`RUN -d --name db --expose 5432 -e SECRET=x x sleep 300`, 0, anyID},
		{`RUN -d --name web --link db:store --link db x sleep 300`, 0, anyID},
		{`inspect --format '{{json .HostConfig.Links}}' web`, 0, `\["/db:/web/store","/db:/web/db"\]`},
		{`ps --no-trunc --filter name=^db$ --format '{{.Names}}'`, 0, `db,web/db,web/store`},
		{`ps --filter name=^db$ --format '{{.Names}}'`, 0, `db`},
		{`inspect --format '{{.Name}}' web/store /web/db`, 0, "/db\n/db"},
		{`exec web/store hostname`, 0, `[0-9a-f]{12}`},
		{`exec web env`, 0, `.*STORE_PORT=tcp://172\.17\.0\.2:5432\n.*STORE_NAME=/web/store\nSTORE_ENV_SECRET=x\n.*DB_NAME=/web/db\n.*`},
		{`exec web sh -c 'getent hosts store; tr "\0" "\n" </proc/1/environ|grep STORE_PORT='`, 0, `172\.17\.0\.2 .*STORE_PORT=tcp://172\.17\.0\.2:5432`},
		{`rename web www`, 0, ``},
		{`inspect --format '{{json .HostConfig.Links}}' www`, 0, `\["/db:/www/store","/db:/www/db"\]`},
		{`inspect web/store`, 1, `.*[nN]o such object: web/store`},
		{`rm --link www/store`, 0, `www/store`},
		{`exec www getent hosts store`, 2, ``},
		{`inspect --format '{{json .HostConfig.Links}}' www`, 0, `\["/db:/www/db"\]`},
		{`rm --link www/store`, 1, `.*No such container: www/store`},
		{`rm --link db`, 1, `.*Conflict, cannot remove the default link name of the container.*`},
		{`rm -f www db`, 0, "www\ndb"},
	})
}

// A docker run that nobody waits for, the events it makes, in Docker's order.
func TestDockerEventOrder(t *testing.T) {
	e := newEngine(t)
	e.play([]step{
		{`network create lab`, 0, anyID},
		{`RUN -d --name ctr --network lab x sleep 300`, 0, anyID},
		{`stop -t 0 ctr`, 0, "ctr"},
		{`rm ctr`, 0, "ctr"},
		{`events --since 1h --until $(date +%s.%N) --format '{{.Type}} {{.Action}}'`, 0, strings.Join([]string{
			"(network create\n)+container create", "network connect", "container start",
			"container kill", "(container kill\ncontainer die|container die)", "network disconnect", "container stop", "container destroy",
		}, "\n")},
	})
}

// A terminal: size, echo and the keys to leave by.
func TestDockerTerminal(t *testing.T) {
	e := newEngine(t)
	cli, err := client.New(client.WithHost("unix://" + e.socket))
	must(t, err)
	defer cli.Close()
	e.play([]step{{`RUN -d -it --name ctr x sh`, 0, anyID}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	held, err := cli.ContainerAttach(ctx, "ctr", client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true})
	must(t, err)
	defer held.Close()
	_, err = cli.ContainerResize(ctx, "ctr", client.ContainerResizeOptions{Height: 33, Width: 77})
	must(t, err)
	fmt.Fprint(held.Conn, "stty size; echo d''one\n")
	text := ""
	for !strings.Contains(text, "done") {
		line, err := held.Reader.ReadString('\n')
		text += line
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	}
	if !strings.Contains(text, "33 77\r\n") {
		t.Errorf("%q", text)
	}
	fmt.Fprint(held.Conn, "\x10\x11")
	held.Conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for err == nil {
		_, err = held.Reader.ReadByte()
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the keys do not detach")
	}
	made, err := cli.ExecCreate(ctx, "ctr", client.ExecCreateOptions{TTY: true, AttachStdin: true, AttachStdout: true, Cmd: []string{"cat"}})
	must(t, err)
	inside, err := cli.ExecAttach(ctx, made.ID, client.ExecAttachOptions{TTY: true})
	must(t, err)
	defer inside.Close()
	fmt.Fprint(inside.Conn, "\x10\x11")
	if _, err := io.ReadAll(inside.Reader); err != nil {
		t.Errorf("detaching from an exec: %v", err)
	}
	e.play([]step{
		{`inspect --format '{{.State.Running}}' ctr`, 0, "true"},
		{`events --since 1h --until $(date +%s.%N) --filter event=detach --filter event=exec_detach --format '{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.execID}}'`, 0, "detach ctr <no value>\nexec_detach ctr " + made.ID},
		{`rm -f ctr`, 0, "ctr"},
	})
}

// What is explained is what is done, and to explain changes nothing.
func TestExplainedIsDone(t *testing.T) {
	e := newEngine(t)
	e.play([]step{{`network create --subnet 10.88.0.0/24 -o com.docker.network.bridge.name=brlab lab`, 0, anyID}})
	before := e.on.Dump(t)
	for question, want := range map[string]string{
		`{"Method":"POST","Path":"/networks/create","Body":{"Name":"n"}}`:                                                                 "ip link add name br-",
		`{"Method":"DELETE","Path":"/networks/lab"}`:                                                                                      "brlab",
		`{"Method":"POST","Path":"/containers/create?start=1","Body":{"Cmd":["true"],"HostConfig":{` + rootfs + `,"NetworkMode":"lab"}}}`: "10.88.0.2/24",
	} {
		if status, text := e.raw("POST", "/linkspan/v1/explain", question); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d\n%s\nlacks %s", question, status, text, want)
		}
	}
	e.play([]step{
		{`ps -aq`, 0, ""},
		{`network ls -q --filter type=custom`, 0, "[0-9a-f]{12}"},
		{`events --since 1h --until $(date +%s.%N) --format '{{.Type}}' --filter type=container`, 0, ""},
	})
	if diff := nstest.Diff(before, e.on.Dump(t)); diff != "" {
		t.Errorf("to explain changed the machine:\n%s", diff)
	}
	e.play([]step{{`RUN -d --name web --network lab x sleep 300`, 0, anyID}})
	for path, want := range map[string]string{
		"/linkspan/v1/commands/container/web": "10.88.0.2/24",
		"/linkspan/v1/commands/network/lab":   "ip link add name brlab ",
		"/linkspan/v1/commands/host":          "nft",
	} {
		if status, text := e.raw("GET", path, ""); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d\n%s\nlacks %s", path, status, text, want)
		}
	}
	if status, text := e.raw("GET", "/linkspan/v1/commands/network/nosuch", ""); status != 404 {
		t.Errorf("%d %s", status, text)
	}
	e.play([]step{{`rm -f web`, 0, "web"}})
}
