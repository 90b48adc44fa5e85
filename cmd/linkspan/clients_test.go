package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// These stories are told by clients that nobody here wrote: the stock docker
// command, both Composes, docker-py and the Go client. They come from apt or
// from Go's modules; see DEBS and the target compose of the Makefile.

// busybox is a tar of a small root.
func busybox(t *testing.T) []byte {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for _, applet := range strings.Fields("sh sleep wget httpd mkdir touch cat nslookup test echo true false ls") {
		add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// stranger runs somebody else's client against the daemon.
func (s *story) stranger(stdin []byte, name string, args ...string) (string, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{
		"DOCKER_HOST=unix://" + filepath.Join(s.dir, "s"), "HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "COMPOSE_HTTP_TIMEOUT=150", "COMPOSE_ANSI=never",
	}
	cmd.Stdin = bytes.NewReader(stdin)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.String(), errors.New(strings.Join(cmd.Args, " ") + ": " + err.Error() + "\n" + out.String() + complaints.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (s *story) must(name string, args ...string) string {
	s.t.Helper()
	out, err := s.stranger(nil, name, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *story) importBusybox() {
	s.t.Helper()
	if _, err := s.stranger(busybox(s.t), "docker", "import", "-", "bb"); err != nil {
		s.t.Fatal(err)
	}
}

// composeTwo is Compose v2, which the Makefile builds: it takes minutes.
func composeTwo(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/docker-compose-v2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	build := exec.Command("make", "-C", "../..", "compose")
	build.Env = append(os.Environ(), "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building Compose v2: %v\n%s", err, out)
	}
	return path
}

func TestComposeOne(t *testing.T) { composeStory(t, "/usr/bin/docker-compose") }

func TestComposeTwo(t *testing.T) { composeStory(t, composeTwo(t)) }

// composeStory: three services on two networks come up in order, find each
// other, are scaled, restarted and taken down, and nothing is left.
func composeStory(t *testing.T, compose string) {
	s := newStory(t)
	s.start()
	s.importBusybox()
	file, err := filepath.Abs("testdata/compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	do := func(args ...string) string {
		t.Helper()
		return s.must(compose, append([]string{"-p", "story", "-f", file}, args...)...)
	}
	one := func(service string) string {
		t.Helper()
		ids := strings.Fields(do("ps", "-q", service))
		if len(ids) == 0 {
			t.Fatalf("no container of %s", service)
		}
		return ids[0]
	}
	do("up", "-d")
	web, client, worker := one("web"), one("client"), one("worker")
	if got := s.must("docker", "inspect", "--format", `{{.State.Health.Status}} {{.NetworkSettings.Networks.story_front.IPAddress}} {{len .NetworkSettings.Networks}} {{.HostConfig.RestartPolicy.Name}}`, web); got != "healthy 10.44.1.10 2 unless-stopped" {
		t.Errorf("web: %s", got)
	}
	fetched := func() bool {
		got, err := s.stranger(nil, "docker", "logs", client)
		return err == nil && got == "hello"
	}
	if !eventually(fetched) {
		t.Errorf("the client, which waits for a healthy web, has not got its page: %s", s.must("docker", "logs", client))
	}
	for _, address := range []string{"http://web/", "http://www/", "http://10.44.1.10/"} {
		if got := s.must("docker", "exec", client, "wget", "-qO-", address); got != "hello" {
			t.Errorf("%s from the client: %q", address, got)
		}
	}
	if got := s.must("docker", "exec", worker, "wget", "-qO-", "http://web/"); got != "hello" {
		t.Errorf("web from the worker: %q", got)
	}
	if _, err := s.stranger(nil, "docker", "exec", worker, "nslookup", "www"); err == nil {
		t.Error("the alias on one network is known on the other")
	}
	if got := s.must("nsenter", "--net=/run/netns/"+s.machine.Name(), "busybox", "wget", "-qO-", "http://127.0.0.1:18080/"); got != "hello" {
		t.Errorf("the published port: %q", got)
	}
	do("up", "-d", "--scale", "worker=3")
	if n := len(strings.Fields(do("ps", "-q", "worker"))); n != 3 {
		t.Errorf("%d workers", n)
	}
	if got := s.must("docker", "exec", worker, "nslookup", "worker"); strings.Count(got, "Address: 172.") != 3 {
		t.Errorf("the workers' addresses: %s", got)
	}
	if same := one("web"); same != web {
		t.Errorf("web was made anew although nothing of it has changed: %s, %s", web, same)
	}
	do("pause")
	do("unpause")
	do("restart", "-t", "0", "worker")
	if got := s.must("docker", "exec", worker, "wget", "-qO-", "http://web/"); got != "hello" {
		t.Errorf("web from the worker after a restart: %q", got)
	}
	do("down", "-t", "0")
	if left := s.must("docker", "ps", "-aq") + s.must("docker", "network", "ls", "-q", "--filter", "type=custom"); left != "" {
		t.Errorf("left behind: %s", left)
	}
	s.must("docker", "rmi", "bb")
	s.leave()
}

func eventually(holds func() bool) bool {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

func TestDockerPy(t *testing.T) {
	s := newStory(t)
	s.start()
	s.importBusybox()
	if got := s.must("/usr/bin/python3", "testdata/client.py"); got != "all well" {
		t.Error(got)
	}
	s.must("docker", "rmi", "bb")
	s.leave()
}

func TestGoClient(t *testing.T) {
	s := newStory(t)
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c, err := client.New(client.WithHost("unix://" + filepath.Join(s.dir, "s")))
	noError(t, err)
	defer c.Close()
	ping, err := c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
	noError(t, err)
	if ping.APIVersion != "1.56" || ping.OSType != "linux" {
		t.Errorf("ping: %+v", ping)
	}
	imported, err := c.ImageImport(ctx, client.ImageImportSource{Source: bytes.NewReader(busybox(t)), SourceName: "-"}, "bb", client.ImageImportOptions{})
	noError(t, err)
	_, err = io.Copy(io.Discard, imported)
	noError(t, err)
	watching, stop := context.WithCancel(ctx)
	events := c.Events(watching, client.EventsListOptions{Filters: make(client.Filters).Add("type", "container").Add("event", "create", "start", "die", "destroy")})
	var seen []string
	told := make(chan struct{})
	go func() {
		defer close(told)
		for {
			select {
			case e := <-events.Messages:
				if seen = append(seen, string(e.Action)); len(seen) == 4 {
					return
				}
			case <-events.Err:
				return
			}
		}
	}()
	_, err = c.NetworkCreate(ctx, "gonet", client.NetworkCreateOptions{Driver: "bridge"})
	noError(t, err)
	made, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: "go1", Config: &container.Config{Image: "bb", Cmd: []string{"sh", "-c", "read line; echo got $line; exit 5"}, OpenStdin: true, StdinOnce: true, AttachStdin: true},
		HostConfig: &container.HostConfig{NetworkMode: "gonet"},
	})
	noError(t, err)
	attached, err := c.ContainerAttach(ctx, made.ID, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true})
	noError(t, err)
	defer attached.Close()
	waiting := c.ContainerWait(ctx, made.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	_, err = c.ContainerStart(ctx, made.ID, client.ContainerStartOptions{})
	noError(t, err)
	stats, err := c.ContainerStats(ctx, made.ID, client.ContainerStatsOptions{})
	noError(t, err)
	var usage container.StatsResponse
	noError(t, json.NewDecoder(stats.Body).Decode(&usage))
	stats.Body.Close()
	if usage.Name != "/go1" || usage.PidsStats.Current == 0 {
		t.Errorf("stats %+v", usage)
	}
	exec, err := c.ExecCreate(ctx, made.ID, client.ExecCreateOptions{Cmd: []string{"sh", "-c", "echo from-exec; exit 3"}, AttachStdout: true, AttachStderr: true})
	noError(t, err)
	running, err := c.ExecAttach(ctx, exec.ID, client.ExecAttachOptions{})
	noError(t, err)
	if got := output(t, running.Reader); got != "from-exec\n" {
		t.Errorf("exec: %q", got)
	}
	running.Close()
	state, err := c.ExecInspect(ctx, exec.ID, client.ExecInspectOptions{})
	noError(t, err)
	if state.ExitCode != 3 || state.Running {
		t.Errorf("exec: %+v", state)
	}
	_, err = io.WriteString(attached.Conn, "zig\n")
	noError(t, err)
	if got := output(t, attached.Reader); got != "got zig\n" {
		t.Errorf("attached: %q", got)
	}
	select {
	case result := <-waiting.Result:
		if result.StatusCode != 5 {
			t.Errorf("wait: %+v", result)
		}
	case err := <-waiting.Error:
		t.Error(err)
	}
	logs, err := c.ContainerLogs(ctx, made.ID, client.ContainerLogsOptions{ShowStdout: true})
	noError(t, err)
	if got := output(t, logs); got != "got zig\n" {
		t.Errorf("logs: %q", got)
	}
	logs.Close()
	_, err = c.ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{})
	noError(t, err)
	<-told
	stop()
	if !slices.Equal(seen, []string{"create", "start", "die", "destroy"}) {
		t.Errorf("events: %v", seen)
	}
	_, err = c.NetworkRemove(ctx, "gonet", client.NetworkRemoveOptions{})
	noError(t, err)
	_, err = c.ImageRemove(ctx, "bb", client.ImageRemoveOptions{})
	noError(t, err)
	s.leave()
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// output is the standard output in a stream of Docker's frames.
func output(t *testing.T, stream io.Reader) string {
	t.Helper()
	var out bytes.Buffer
	_, err := stdcopy.StdCopy(&out, io.Discard, stream)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	return out.String()
}
