package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

func TestPortsOf(t *testing.T) {
	tests := []struct{ name, ports, want string }{
		{"none", `[]`, ""},
		{"exposed", `[{"PrivatePort":80,"Type":"tcp"}]`, "80/tcp"},
		{"exposed run", `[{"PrivatePort":72,"Type":"tcp"},{"PrivatePort":70,"Type":"tcp"},{"PrivatePort":71,"Type":"tcp"}]`, "70-72/tcp"},
		{
			"both families", `[{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}]`,
			"0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
		},
		{
			"run of equal ports", `[{"IP":"0.0.0.0","PrivatePort":81,"PublicPort":81,"Type":"udp"},{"IP":"0.0.0.0","PrivatePort":82,"PublicPort":82,"Type":"udp"},{"IP":"0.0.0.0","PrivatePort":84,"PublicPort":84,"Type":"udp"},{"PrivatePort":70,"Type":"udp"}]`,
			"0.0.0.0:81-82->81-82/udp, 70/udp, 0.0.0.0:84->84/udp",
		},
		{
			"shifted ports stay apart", `[{"IP":"0.0.0.0","PrivatePort":90,"PublicPort":9000,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":91,"PublicPort":9001,"Type":"tcp"},{"PrivatePort":70,"Type":"tcp"}]`,
			"70/tcp, 0.0.0.0:9000->90/tcp, 0.0.0.0:9001->91/tcp",
		},
		{"last port there is", `[{"PrivatePort":65535,"Type":"tcp"},{"PrivatePort":1,"Type":"tcp"}]`, "1/tcp, 65535/tcp"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var ports []container.PortSummary
			if err := json.Unmarshal([]byte(test.ports), &ports); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, portsOf(ports)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPs(t *testing.T) {
	daemon := newFake(t, map[string]answer{"GET /containers/json": {body: `[
		{"Id":"1111111111111111","Names":["/web","/other/alias"],"Image":"","Command":"python3 -m http.server 80","Created":1,"State":"running","Status":"Up 3 seconds",
		 "Labels":{"k":"v"},"HostConfig":{"Annotations":{"linkspan.rootfs":"/"}},"NetworkSettings":{"Networks":{"lab":{},"b":{}}},"Ports":[]},
		{"Id":"2222222222222222","Names":["/old"],"Image":"busybox","Command":"sh","Created":1,"State":"exited","Status":"Exited (0) 5 minutes ago","Ports":[]}]`}})
	tests := []struct{ line, query, out string }{
		{"ps -q", "", "111111111111\n222222222222\n"},
		{"ps -aq --no-trunc -f status=running -f name=web", `?all=1&filters=%7B%22name%22%3A%7B%22web%22%3Atrue%7D%2C%22status%22%3A%7B%22running%22%3Atrue%7D%7D`, "1111111111111111\n2222222222222222\n"},
		{"ps -l --format {{.Names}}|{{.Image}}|{{.Command}}|{{.Networks}}", "?limit=1", "web|rootfs:/|\"python3 -m http.ser…\"|b,lab\nold|busybox|\"sh\"|\n"},
		{"ps -n 2 --format {{.Label\u00a0\"k\"}}", "?limit=2", "v\n\n"},
		{"ps --format table\u00a0{{.Names}}\\t{{.Status}}", "", "NAMES     STATUS\nweb       Up 3 seconds\nold       Exited (0) 5 minutes ago\n"},
	}
	for _, test := range tests {
		t.Run(test.line, func(t *testing.T) {
			var args []string
			for field := range strings.FieldsFuncSeq(test.line, func(r rune) bool { return r == ' ' }) {
				args = append(args, strings.ReplaceAll(field, "\u00a0", " "))
			}
			got := invoke(t, daemon.host, "", args...)
			if diff := cmp.Diff(result{test.out, "", 0}, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			all := daemon.requests()
			if diff := cmp.Diff("/containers/json"+test.query, all[len(all)-1].URI); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
	bad := invoke(t, daemon.host, "", "ps", "--format", "{{.Nope}}")
	if bad.code != 1 || !strings.HasPrefix(bad.err, "linkspan: template parsing error: ") || strings.Count(bad.err, "\n") != 1 {
		t.Errorf("got %+v", bad)
	}
}

func TestContainerRowsTellTime(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	rows := containerRows([]container.Summary{{Created: now.Add(-2 * time.Hour).Unix()}}, false, now)
	if rows[0].RunningFor != "2 hours ago" {
		t.Errorf("got %q", rows[0].RunningFor)
	}
}

func TestNatural(t *testing.T) {
	sorted := []string{"", "a", "a1", "a01", "a2", "a10", "a10b", "b"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := natural(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("natural(%q, %q) = %d", a, b, got)
			}
		}
	}
}

func TestOneLine(t *testing.T) {
	tests := []struct{ in, want string }{
		{"plain", "plain"},
		{"invalid network config:\ninvalid subnet x\ninvalid gateway y\n", "invalid network config: invalid subnet x; invalid gateway y"},
		{"a\n\n  b", "a; b"},
		{"", ""},
	}
	for _, test := range tests {
		if got := oneLine(test.in); got != test.want {
			t.Errorf("oneLine(%q) = %q, want %q", test.in, got, test.want)
		}
	}
}

func TestLook(t *testing.T) {
	daemon := newFake(t, map[string]answer{
		"GET /containers/web/json": {body: `{"Id":"abc","Config":{},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"443/tcp":null},"Networks":{"lab":{"GlobalIPv6Address":"","IPAddress":"10.77.0.2"}}}}`},
		"GET /containers/lab/json": {status: 404, body: `{"message":"No such container: lab"}`},
		"GET /images/lab/json":     {status: 501, body: `{"message":"images are not implemented"}`},
		"GET /networks/lab":        {body: `{"Name":"lab","Id":"n"}`},
		"GET /containers/abc/logs": {body: "\x01\x00\x00\x00\x00\x00\x00\x02a\n\x02\x00\x00\x00\x00\x00\x00\x02b\n"},
		"GET /containers/web/top":  {body: `{"Titles":["PID","CMD"],"Processes":[["1","sh"]]}`},
		"GET /events":              {body: `{"Type":"network","Action":"create","Actor":{"ID":"n","Attributes":{"type":"bridge","name":"lab"}},"time":1,"timeNano":1000000001}` + "\n"},
		"GET /version":             {body: `{"Version":"1","ApiVersion":"1.52"}`},
	})
	tests := []struct {
		args []string
		want result
	}{
		{[]string{"port", "web"}, result{"80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n", "", 0}},
		{[]string{"port", "web", "80"}, result{"0.0.0.0:8080\n[::]:8080\n", "", 0}},
		{[]string{"port", "web", "443"}, result{"", "linkspan: no public port '443/tcp' published for web\n", 1}},
		{[]string{"inspect", "-f", "{{.Id}} {{.NetworkSettings.Networks.lab.IPAddress}}", "web"}, result{"abc 10.77.0.2\n", "", 0}},
		{[]string{"inspect", "-f", "{{.ID}}[{{.NetworkSettings.Networks.lab.GlobalIPv6Address}}]", "web"}, result{"abc[]\n", "", 0}},
		{[]string{"inspect", "-f", "[{{.NetworkSettings.Networks.lab.GlobalIPv6Address}}]", "web"}, result{"[]\n", "", 0}},
		{[]string{"inspect", "-f", "{{.Name}}", "lab"}, result{"lab\n", "", 0}},
		{[]string{"inspect", "--type", "container", "lab"}, result{"[]\n", "linkspan: Error response from daemon: No such container: lab\n", 1}},
		{[]string{"inspect", "nope"}, result{"[]\n", "linkspan: error: no such object: nope\n", 1}},
		{[]string{"logs", "-n", "2", "web"}, result{"a\n", "b\n", 0}},
		{[]string{"top", "web"}, result{"PID                 CMD\n1                   sh\n", "", 0}},
		{[]string{"events", "--format", "{{.Type}} {{.Action}} {{.Actor.ID}}"}, result{"network create n\n", "", 0}},
		{[]string{"version", "--format", "{{.Server.Version}}"}, result{"1\n", "", 0}},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			got := invoke(t, daemon.host, "", test.args...)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
