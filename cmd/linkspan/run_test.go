package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// oneContainer answers for one container that does something with its streams,
// then ends with a status. A start that is refused has the refusal's text.
func oneContainer(status int, startRefusal string, hijack func(net.Conn, io.Reader)) map[string]answer {
	answers := map[string]answer{
		"POST /containers/create":     {status: http.StatusCreated, body: `{"Id":"abc","Warnings":["careful"]}`},
		"POST /containers/abc/wait":   {body: fmt.Sprintf(`{"StatusCode":%d}`, status)},
		"POST /containers/abc/start":  {status: http.StatusNoContent},
		"POST /containers/abc/attach": {hijack: hijack},
	}
	if startRefusal != "" {
		answers["POST /containers/abc/start"] = answer{status: http.StatusBadRequest, body: startRefusal}
	}
	return answers
}

func paths(requests []asked) []string {
	var lines []string
	for _, one := range requests {
		lines = append(lines, one.Method+" "+one.URI)
	}
	return lines
}

func TestRunAttached(t *testing.T) {
	daemon := newFake(t, oneContainer(7, "", func(conn net.Conn, _ io.Reader) {
		frame(conn, 1, "out\n")
		frame(conn, 2, "err\n")
	}))
	got := invoke(t, daemon.host, "", "run", "--rm", "--name", "web", "--rootfs", "/", "--", "true")
	want := result{"out\n", "WARNING: careful\nerr\n", 7}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	order := []string{
		"POST /containers/create?name=web",
		"POST /containers/abc/attach?stderr=1&stdout=1&stream=1",
		"POST /containers/abc/wait?condition=removed",
		"POST /containers/abc/start",
	}
	if diff := cmp.Diff(order, paths(daemon.requests())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestRunInput(t *testing.T) {
	daemon := newFake(t, oneContainer(0, "", func(conn net.Conn, client io.Reader) {
		text, err := io.ReadAll(client) // ends with the client's half of the connection
		if err != nil {
			text = []byte(err.Error())
		}
		frame(conn, 1, strings.ToUpper(string(text)))
	}))
	got := invoke(t, daemon.host, "hello", "run", "-i", "busybox", "cat")
	if got.out != "HELLO" || got.code != 0 {
		t.Errorf("got %+v, want HELLO and 0", got)
	}
	if uri := daemon.requests()[1].URI; uri != "/containers/abc/attach?stderr=1&stdin=1&stdout=1&stream=1" {
		t.Errorf("attached by %s", uri)
	}
	if uri := daemon.requests()[2].URI; uri != "/containers/abc/wait?condition=next-exit" {
		t.Errorf("waited by %s", uri)
	}
}

func TestRunDetached(t *testing.T) {
	daemon := newFake(t, oneContainer(0, "", nil))
	idFile := filepath.Join(t.TempDir(), "id")
	got := invoke(t, daemon.host, "", "run", "-d", "-i", "--cidfile", idFile, "--rootfs", "/", "--", "true")
	if diff := cmp.Diff(result{"abc\n", "WARNING: careful\n", 0}, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"POST /containers/create", "POST /containers/abc/start"}, paths(daemon.requests())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	body := daemon.requests()[0].Body
	for _, part := range []string{"AttachStdin", "AttachStdout", "AttachStderr", "StdinOnce"} {
		if pick(t, body, part) != "false" {
			t.Errorf("%s of a detached container is %s", part, pick(t, body, part))
		}
	}
	if id, err := os.ReadFile(idFile); err != nil || string(id) != "abc" {
		t.Errorf("the file of --cidfile holds %q: %v", id, err)
	}
	if again := invoke(t, daemon.host, "", "run", "-d", "--cidfile", idFile, "--rootfs", "/"); again.code != 125 || !strings.Contains(again.err, "container ID file found") {
		t.Errorf("a second container took the same file: %+v", again)
	}
}

func TestRunStatuses(t *testing.T) {
	tests := []struct {
		name, refusal string
		want          int
	}{
		{"not found", `{"message":"exec: \"nope\": executable file not found in $PATH"}`, 127},
		{"no such file", `{"message":"exec /nope: no such file or directory"}`, 127},
		{"not executable", `{"message":"exec /etc/passwd: permission denied"}`, 126},
		{"directory", `{"message":"exec /etc: is a directory"}`, 126},
		{"anything else", `{"message":"network lab not found"}`, 125},
	}
	for _, test := range tests {
		for _, mode := range []string{"-d", "--rm"} {
			t.Run(test.name+" "+mode, func(t *testing.T) {
				daemon := newFake(t, oneContainer(0, test.refusal, func(net.Conn, io.Reader) {}))
				got := invoke(t, daemon.host, "", "run", mode, "--rootfs", "/", "--", "x")
				if got.code != test.want {
					t.Errorf("status %d, want %d: %s", got.code, test.want, got.err)
				}
				if lines := strings.Split(strings.TrimSpace(got.err), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], "linkspan: Error response from daemon: ") {
					t.Errorf("want the warning and one line of error, got:\n%s", got.err)
				}
			})
		}
	}
}

func TestRunRefusedBeforeStart(t *testing.T) {
	idFile := filepath.Join(t.TempDir(), "id")
	daemon := newFake(t, map[string]answer{
		"POST /containers/create": {status: http.StatusBadRequest, body: `{"message":"rootfs /nowhere: no such file or directory"}`},
	})
	tests := []struct {
		line, want string
	}{
		{"run --rootfs /nowhere true", "linkspan: Error response from daemon: rootfs /nowhere: no such file or directory\n"},
		{"run --cidfile " + idFile + " --rootfs /nowhere true", "linkspan: Error response from daemon: rootfs /nowhere: no such file or directory\n"},
		{"run", "linkspan: an IMAGE, or --rootfs DIR, is required: see --help\n"},
		{"run --nope busybox", "linkspan: unknown flag: --nope\n"},
		{"run -it --rootfs / sh", "linkspan: the input device is not a TTY: leave -t out when the input is a pipe or a file\n"},
		{"run -d -a stdout busybox", "linkspan: conflicting options: cannot specify both --attach and --detach\n"},
		{"run --pull sometimes busybox", "linkspan: invalid --pull \"sometimes\": want always, missing or never\n"},
		{"-H unix:///nowhere/s run --rootfs / true", "linkspan: cannot connect to the daemon at unix:///nowhere/s: dial unix /nowhere/s: connect: no such file or directory: " +
			"start one with `linkspan daemon`, or choose another with -H or LINKSPAN_HOST\n"},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			got := invoke(t, daemon.host, "", strings.Fields(test.line)...)
			if diff := cmp.Diff(result{"", test.want, 125}, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if _, err := os.Stat(idFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of --cidfile was left behind: %v", err)
	}
}

func TestRunPullsMissingImage(t *testing.T) {
	daemon := newFake(t, map[string]answer{
		"POST /containers/create": {status: http.StatusNotFound, body: `{"message":"No such image: busybox:latest"}`},
		"POST /images/create":     {body: `{"status":"Pulling","id":"latest"}` + "\n" + `{"errorDetail":{"message":"no route to registry"},"error":"no route to registry"}`},
	})
	got := invoke(t, daemon.host, "", "run", "busybox")
	if got.code != 125 || !strings.HasSuffix(got.err, "Unable to find image 'busybox' locally\nlatest: Pulling\nlinkspan: no route to registry\n") {
		t.Errorf("got %+v", got)
	}
	if diff := cmp.Diff([]string{"POST /containers/create", "POST /images/create?fromImage=docker.io%2Flibrary%2Fbusybox&tag=latest"}, paths(daemon.requests())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if never := invoke(t, daemon.host, "", "run", "--pull", "never", "busybox"); strings.Contains(never.err, "Pulling") || never.code != 125 {
		t.Errorf("--pull never pulled: %+v", never)
	}
}

func TestRunProxiesSignals(t *testing.T) {
	killed := make(chan struct{})
	answers := oneContainer(42, "", func(conn net.Conn, _ io.Reader) {
		// The client catches signals before it asks for the start.
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
			frame(conn, 2, err.Error())
		}
		select {
		case <-killed:
		case <-time.After(5 * time.Second):
			frame(conn, 2, "no signal came")
		}
	})
	started := make(chan struct{})
	attach := answers["POST /containers/abc/attach"].hijack
	answers["POST /containers/abc/attach"] = answer{hijack: func(conn net.Conn, client io.Reader) {
		<-started
		attach(conn, client)
	}}
	daemon := newFake(t, answers)
	daemon.hooks = map[string]func(){
		"POST /containers/abc/start": func() { close(started) },
		"POST /containers/abc/kill":  func() { close(killed) },
	}
	got := invoke(t, daemon.host, "", "run", "--rootfs", "/", "--", "x")
	if got.code != 42 || strings.Contains(got.err, "no signal came") {
		t.Errorf("got %+v", got)
	}
	var signals []string
	for _, line := range paths(daemon.requests()) {
		if strings.Contains(line, "/kill") {
			signals = append(signals, line)
		}
	}
	if diff := cmp.Diff([]string{"POST /containers/abc/kill?signal=USR2"}, signals); diff != "" {
		t.Errorf("signals (-want +got):\n%s", diff)
	}
}

func TestExec(t *testing.T) {
	daemon := newFake(t, map[string]answer{
		"GET /containers/web/json":  {body: `{"Id":"abc"}`},
		"POST /containers/web/exec": {status: http.StatusCreated, body: `{"Id":"e1"}`},
		"POST /exec/e1/start": {hijack: func(conn net.Conn, client io.Reader) {
			line, err := bufio.NewReader(client).ReadString('\n')
			frame(conn, 1, fmt.Sprintf("%s%v", line, err))
		}},
		"GET /exec/e1/json":         {body: `{"ID":"e1","ExitCode":5}`},
		"GET /containers/gone/json": {status: http.StatusNotFound, body: `{"message":"No such container: gone"}`},
	})
	got := invoke(t, daemon.host, "yo\n", "exec", "-i", "-u", "1", "-w", "/x", "-e", "A=1", "web", "ls", "-l")
	if diff := cmp.Diff(result{"yo\n<nil>", "", 5}, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := `{"User":"1","Privileged":false,"Tty":false,"AttachStdin":true,"AttachStderr":true,"AttachStdout":true,"DetachKeys":"","Env":["A=1"],"WorkingDir":"/x","Cmd":["ls","-l"]}`
	if diff := cmp.Diff(pick(t, want), pick(t, daemon.requests()[1].Body)); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if got := invoke(t, daemon.host, "", "exec", "gone", "ls"); got.code != 1 || got.err != "linkspan: Error response from daemon: No such container: gone\n" {
		t.Errorf("got %+v", got)
	}
}

func TestExplain(t *testing.T) {
	daemon := newFake(t, map[string]answer{
		"POST /linkspan/v1/explain":               {body: "# a bridge\nip link add br0 type bridge\n"},
		"GET /linkspan/v1/commands/container/web": {status: http.StatusNotFound, body: `{"message":"No such container: web"}`},
		"GET /linkspan/v1/commands/network/web":   {body: "ip link add br1 type bridge\n"},
	})
	tests := []struct {
		line   string
		method string
		path   string
		part   []string
		value  string
	}{
		{"explain run --name x --network lab --rootfs / -- true", `"POST"`, `"/containers/create?name=x\u0026start=1"`, []string{"HostConfig", "NetworkMode"}, `"lab"`},
		{"explain create --rootfs / -- true", `"POST"`, `"/containers/create"`, []string{"Cmd"}, `["true"]`},
		{"explain network create --subnet 10.77.0.0/24 lab", `"POST"`, `"/networks/create"`, []string{"Name"}, `"lab"`},
		{"explain network rm lab", `"DELETE"`, `"/networks/lab"`, nil, `null`},
		{"explain network connect --alias a lab web", `"POST"`, `"/networks/lab/connect"`, []string{"Container"}, `"web"`},
		{"explain rm -f web", `"DELETE"`, `"/containers/web?force=1"`, nil, `null`},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			got := invoke(t, daemon.host, "", strings.Fields(test.line)...)
			if got.code != 0 || got.out != "# a bridge\nip link add br0 type bridge\n" {
				t.Fatalf("got %+v", got)
			}
			all := daemon.requests()
			last := all[len(all)-1]
			if last.URI != "/linkspan/v1/explain" || pick(t, last.Body, "Method") != test.method || pick(t, last.Body, "Path") != test.path {
				t.Errorf("asked %+v", last)
			}
			if value := pick(t, last.Body, append([]string{"Body"}, test.part...)...); value != test.value {
				t.Errorf("body has %s, want %s", value, test.value)
			}
		})
	}
	if got := invoke(t, daemon.host, "", "explain", "dance"); got.code != 1 || !strings.Contains(got.err, `unknown verb "dance"`) {
		t.Errorf("got %+v", got)
	}
	if got := invoke(t, daemon.host, "", "inspect", "--commands", "web"); got.out != "ip link add br1 type bridge\n" || got.code != 0 {
		t.Errorf("inspect --commands: %+v", got)
	}
}

// TestExplainSendsWhatRunSends holds the two to one body.
func TestExplainSendsWhatRunSends(t *testing.T) {
	line := strings.Fields("-d --network name=lab,ip=10.77.0.5 -p 8080:80 -e A=1 --rootfs / -- sh -c x")
	daemon := newFake(t, map[string]answer{
		"POST /linkspan/v1/explain":  {body: "#\n"},
		"POST /containers/create":    {status: http.StatusCreated, body: `{"Id":"abc"}`},
		"POST /containers/abc/start": {status: http.StatusNoContent},
	})
	invoke(t, daemon.host, "", append([]string{"explain", "run"}, line...)...)
	invoke(t, daemon.host, "", append([]string{"run"}, line...)...)
	all := daemon.requests()
	if diff := cmp.Diff(pick(t, all[1].Body), pick(t, all[0].Body, "Body")); diff != "" {
		t.Errorf("bodies (-run +explain):\n%s", diff)
	}
}
