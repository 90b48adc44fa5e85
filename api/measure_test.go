package api

import (
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/websocket"
)

func TestDockerMeasures(t *testing.T) {
	e := newEngine(t)
	e.play([]step{
		{`RUN -d --name one --memory 64m x sh -c 'head -c 100000 /dev/zero >/measured; exec sleep 300'`, 0, anyID},
		{`stats --no-stream --format '{{.Name}}|{{.NetIO}}|{{.PIDs}}|{{.MemUsage}}|{{.CPUPerc}}' one`, 0, `one\|.*B / .*B\|[1-9]\|.* / 64MiB\|[0-9.]+%`},
		{`stats --no-stream --format '{{.Name}}'`, 0, `one`},
		{`update --memory 128m --memory-swap 128m --restart on-failure:3 one`, 0, `one`},
		{`stats --no-stream --format '{{.MemUsage}}' one`, 0, `.* / 128MiB`},
		{`inspect --format '{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}' one`, 0, `134217728 on-failure`},
		{`update --memory 1 one`, 1, `Error response from daemon: Cannot update container [0-9a-f]+: Minimum memory limit allowed is 6MB`},
		{`ps -s --format '{{.Size}}'`, 0, `[0-9.]+kB \(virtual .*\)`},
		{`inspect -s --format '{{.SizeRw}} {{.SizeRootFs}}' one`, 0, `1\d{5} 1\d{5}`},
		{`kill one`, 0, `one`},
		{`stats --no-stream --format '{{.Name}}|{{.PIDs}}' one`, 0, `one\|0`},
		{`container prune -f`, 0, `Deleted Containers:\n[0-9a-f]+\n\nTotal reclaimed space: 1.*kB`},
		{`stats --no-stream one`, 1, `.*No such container: one`},
	})
}

func TestAttachWebsocket(t *testing.T) {
	e := newEngine(t)
	e.play([]step{{`RUN -d -i --name cat x sh -c 'while read line; do echo "out $line"; echo "err $line" >&2; done'`, 0, anyID}})
	conn, err := net.Dial("unix", e.socket)
	must(t, err)
	config, err := websocket.NewConfig("ws://d/v1.40/containers/cat/attach/ws?stream=1&stdin=1&stdout=1&stderr=1", "http://d")
	must(t, err)
	socket, err := websocket.NewClient(config, conn)
	must(t, err)
	defer socket.Close()
	_, err = io.WriteString(socket, "one\n")
	must(t, err)
	var got strings.Builder
	buf := make([]byte, 100)
	for !strings.Contains(got.String(), "out one\n") || !strings.Contains(got.String(), "err one\n") {
		n, err := socket.Read(buf)
		must(t, err)
		got.Write(buf[:n])
	}
	if got.String() != "out one\nerr one\n" && got.String() != "err one\nout one\n" {
		t.Errorf("output %q", got.String())
	}
	e.play([]step{{`rm -f cat`, 0, "cat"}})
	if rest, err := io.ReadAll(socket); err != nil || len(rest) > 0 {
		t.Errorf("the end: %q %v", rest, err)
	}
}

// Clients of old tell by null what was not measured from what there is none of.
func TestOldUsageOfOneKind(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	for kind, field := range map[string]string{"image": "Images", "container": "Containers", "volume": "Volumes", "build-cache": "BuildCache"} {
		got := ask(s, "GET", "/v1.44/system/df?type="+kind, "").Body.String()
		if strings.Count(got, ":null") != 3 || !strings.Contains(got, `"`+field+`":[]`) {
			t.Errorf("%s: %s", kind, got)
		}
	}
}
