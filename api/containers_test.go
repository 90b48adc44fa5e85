package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mobycontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/runtime/image"
)

const rootfs = `"Annotations":{"linkspan.rootfs":"/"}`

func TestCreateContainer(t *testing.T) {
	f := &fakeContainers{all: []record{webContainer()}}
	s := newTestServer(t, &fakeNetworking{}, f)
	w := ask(s, "POST", "/v1.50/containers/create?name=n", `{"Cmd":["true"],"MacAddress":"02:42:0a:4d:00:09","HostConfig":{`+rootfs+`,"NetworkMode":"default"},"NetworkingConfig":{"EndpointsConfig":{"default":{"GwPriority":7}}}}`)
	if want := `{"Id":"` + string(ctrID) + `","Warnings":["` + macDeprecated + `"]}`; w.Code != 201 || strings.TrimSpace(w.Body.String()) != want {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	q := f.requests[0]
	if q.Name != "n" || q.Rootfs != "/" || q.HostConfig.NetworkMode != "bridge" || q.HostConfig.LogConfig.Type != "json-file" || q.HostConfig.RestartPolicy.Name != "no" {
		t.Errorf("%+v %+v", q, q.HostConfig)
	}
	if e := q.Networking.EndpointsConfig["bridge"]; e == nil || e.MacAddress.String() != "02:42:0a:4d:00:09" || e.GwPriority != 7 {
		t.Errorf("%+v", e)
	}
	for path, want := range map[string]string{
		"/containers/create":       `["Following container port(s) have an empty list of port-bindings: 80/tcp, 81/udp. Such bindings will be discarded in a future version."]`,
		"/v1.51/containers/create": `[]`,
	} {
		f.requests = nil
		w := ask(s, "POST", path, `{"Cmd":["true"],"HostConfig":{`+rootfs+`,"PortBindings":{"81/udp":[],"80/tcp":null,"82/tcp":[{"HostPort":"82"}]}}}`)
		if want = `{"Id":"` + string(ctrID) + `","Warnings":` + want + `}`; w.Code != 201 || strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("%s: %d %s, want %s", path, w.Code, w.Body, want)
		}
		for port, bindings := range f.requests[0].HostConfig.PortBindings {
			if len(bindings) != 1 {
				t.Errorf("%s: bindings of %s: %v", path, port, bindings)
			}
		}
	}
	f.requests = f.requests[:1]
	w = ask(s, "POST", "/v1.47/containers/create", `{"Cmd":["true"],"HostConfig":{`+rootfs+`,"Sysctls":{"net.ipv4.conf.eth0.log_martians":"1","net.ipv4.tcp_mtu_probing":"1"}}}`)
	if want := `{"Id":"` + string(ctrID) + `","Warnings":["Migrated sysctl \"net.ipv4.conf.eth0.log_martians\" to DriverOpts{\"com.docker.network.endpoint.sysctls\":\"net.ipv4.conf.IFNAME.log_martians=1\"}."]}`; w.Code != 201 || strings.TrimSpace(w.Body.String()) != want {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if q := f.requests[1]; len(q.HostConfig.Sysctls) != 1 || q.Networking.EndpointsConfig["bridge"].DriverOpts["com.docker.network.endpoint.sysctls"] != "net.ipv4.conf.IFNAME.log_martians=1" {
		t.Errorf("%+v %+v", q.HostConfig, q.Networking)
	}
	w = ask(s, "POST", "/containers/create", `{"Cmd":["true"],"MacAddress":"02:42:0a:4d:00:09","HostConfig":{`+rootfs+`,"NetworkMode":"container:web","IpcMode":"container:web","PidMode":"container:web"}}`)
	if want := `{"Id":"` + string(ctrID) + `","Warnings":[]}`; w.Code != 201 || strings.TrimSpace(w.Body.String()) != want {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	donor := "container:" + string(ctrID)
	if q := f.requests[2]; string(q.HostConfig.NetworkMode) != donor || string(q.HostConfig.IpcMode) != donor || string(q.HostConfig.PidMode) != donor || q.Config.Hostname != ctrID.Short() || len(q.Networking.EndpointsConfig) > 0 {
		t.Errorf("%+v %+v", q.HostConfig, q.Networking)
	}
}

// The mode and an endpoint may call one network by different words.
func TestOneNetworkByTwoWords(t *testing.T) {
	f := &fakeContainers{all: []record{webContainer()}}
	s := newTestServer(t, &fakeNetworking{all: []network.Network{{ID: netID, Name: "lab"}}}, f)
	w := ask(s, "POST", "/v1.25/containers/create", `{"Cmd":["true"],"MacAddress":"02:42:0a:4d:00:09","HostConfig":{`+rootfs+`,"NetworkMode":"`+string(netID)+`"},`+
		`"NetworkingConfig":{"EndpointsConfig":{"lab":{"IPAMConfig":{"IPv4Address":"10.77.0.9"}}}}}`)
	if w.Code != 201 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	all := f.requests[0].Networking.EndpointsConfig
	if e := all[string(netID)]; len(all) != 1 || e == nil || e.MacAddress.String() != "02:42:0a:4d:00:09" || e.IPAMConfig.IPv4Address.String() != "10.77.0.9" {
		t.Errorf("%+v", all)
	}
}

func TestCreateRefusals(t *testing.T) {
	f := &fakeContainers{}
	s := newTestServer(t, &fakeNetworking{}, f)
	for request, want := range map[string]string{
		`/containers/create {"Image":"bb","Cmd":["true"]}`:                                                                                               "404 No such image: bb:latest",
		`/containers/create {"Image":"bb","HostConfig":{"RestartPolicy":{"Name":"nonsense"}}}`:                                                           "400 invalid restart policy: unknown policy 'nonsense'",
		`/containers/create {"Image":"bb","HostConfig":{"Mounts":[{"Type":"bind","Source":"/nosuch","Target":"/m"}]}}`:                                   `400 invalid mount config for type "bind": bind source path does not exist: /nosuch`,
		`/containers/create {"Cmd":["x"],"Hostname":"h","HostConfig":{` + rootfs + `,"NetworkMode":"container:web"}}`:                                    "400 conflicting options: hostname and the network mode",
		`/containers/create {"HostConfig":{}}`:                                                                                                           "400 config cannot be empty in order to create a container",
		`/containers/create {"Cmd":["x"],"HostConfig":{` + rootfs + `,"LogConfig":{"Type":"syslog"}}}`:                                                   `501 log driver "syslog" is not supported by this release: use json-file or local`,
		`/containers/create {"Cmd":["x"],"HostConfig":{` + rootfs + `,"LogConfig":{"Type":"moon"}}}`:                                                     "400 logger: no log driver named 'moon' is registered",
		`/containers/create {"Cmd":["x"],"HostConfig":{` + rootfs + `,"Sysctls":{"net.ipv4.conf.eth0.x":"1"}}}`:                                          "400 interface specific sysctl setting \"net.ipv4.conf.eth0.x\" must be supplied using driver option 'com.docker.network.endpoint.sysctls'",
		`/v1.47/containers/create {"Cmd":["x"],"HostConfig":{` + rootfs + `,"Sysctls":{"net.ipv4.conf.eth1.x":"1"}}}`:                                    "400 unable to determine network endpoint for sysctl net.ipv4.conf.eth1.x",
		`/containers/create {"Cmd":["x"],"HostConfig":{` + rootfs + `},"NetworkingConfig":{"EndpointsConfig":{"n":null}}}`:                               "400 invalid config for network n: EndpointsConfig is nil",
		`/v1.43/containers/create {"Cmd":["x"],"HostConfig":{` + rootfs + `},"NetworkingConfig":{"EndpointsConfig":{"n":{},"m":{}}}}`:                    "400 Container cannot be created with multiple network endpoints: m, n",
		`/v1.43/containers/create {"Cmd":["x"],"MacAddress":"zz","HostConfig":{` + rootfs + `}}`:                                                         "400 invalid MAC address: address zz: invalid MAC address",
		`/v1.43/containers/create {"Cmd":["x"],"MacAddress":"02:42:0a:4d:00:09","HostConfig":{` + rootfs + `,"NetworkMode":"host"}}`:                     "400 conflicting options: mac-address and the network mode",
		`/containers/create {"Cmd":["x"],"HostConfig":{` + rootfs + `,"PortBindings":{"x/tcp":[{"HostPort":"y"}]}}}`:                                     "400 invalid JSON: ",
		`/containers/create {"Cmd":["x"],"HostConfig":{` + rootfs + `},"NetworkingConfig":{"EndpointsConfig":{"n":{"MacAddress":"zz"}}}}`:                "400 invalid JSON: ",
		`/containers/create {"Cmd":["x"],"HostConfig":{` + rootfs + `},"NetworkingConfig":{"EndpointsConfig":{"n":{"IPAMConfig":{"IPv4Address":"z"}}}}}`: "400 invalid JSON: ",
	} {
		path, body, _ := strings.Cut(request, " ")
		if got := statusAndMessage(t, ask(s, "POST", path, body)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s\nwant %s", request, got, want)
		}
	}
	if len(f.requests) > 0 {
		t.Errorf("created all the same: %v", f.requests)
	}
}

func TestInspectContainer(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{settings: webSettings()}, &fakeContainers{all: []record{webContainer()}})
	golden(t, "container-1.56.json", ask(s, "GET", "/v1.56/containers/web/json", ""))
	golden(t, "container-1.51.json", ask(s, "GET", "/v1.51/containers/web/json", ""))
	golden(t, "containers-1.50.json", ask(s, "GET", "/v1.50/containers/json", ""))

	var old struct {
		Config struct{ MacAddress, Hostname string }
	}
	if err := json.Unmarshal(ask(s, "GET", "/v1.44/containers/web/json", "").Body.Bytes(), &old); err != nil || old.Config.MacAddress != "02:42:0a:4d:00:02" || old.Config.Hostname != "cccccccccccc" {
		t.Errorf("%+v %v", old, err)
	}
	if w := ask(s, "GET", "/v1.44/containers/web/json", ""); !strings.Contains(w.Body.String(), `"Aliases":["cccccccccccc"]`) {
		t.Errorf("1.44 lacks the short ID among the aliases: %s", w.Body)
	}
}

func TestListContainers(t *testing.T) {
	web, old := webContainer(), webContainer()
	settings := webSettings()
	settings.Ports = apinetwork.PortMap{apinetwork.MustParsePort("8080/tcp"): {{HostPort: "1090"}}}
	old.ID, old.Name, old.Created, old.Config = "dd", "old", moment.Add(-time.Hour), &mobycontainer.Config{Cmd: []string{"sh", "-c", "echo hi"}}
	old.State = runtime.State{Status: mobycontainer.StateExited, ExitCode: 7, FinishedAt: moment.Add(-time.Minute)}
	f := &fakeContainers{}
	s := newTestServer(t, &fakeNetworking{settings: settings}, f)
	i, err := s.images.Import(bytes.NewReader(make([]byte, 1024)), image.ImportOptions{Name: "bb:1"}) // the end of an archive alone
	must(t, err)
	web.Image = string(i.ID)
	f.all = []record{web, old}
	for query, want := range map[string]string{
		`all=1&filters={"ancestor":["bb:1"]}`:              "web",
		`all=1&filters={"ancestor":["` + web.Image + `"]}`: "web",
		`all=1&filters={"ancestor":["bb:2"]}`:              "",
		``:                                                 "web",
		`all=1`:                                            "web old", `all=true&limit=1`: "web", `limit=5`: "web old",
		`filters={"status":["exited"]}`:               "old",
		`all=1&filters={"exited":["7"]}`:              "old",
		`all=1&filters={"exited":["0"]}`:              "",
		`all=1&filters={"name":["^/old$"]}`:           "old",
		`all=1&filters={"label":["a=b"]}`:             "web",
		`all=1&filters={"before":["web"]}`:            "old",
		`all=1&filters={"since":["old"]}`:             "web",
		`all=1&filters={"network":["lab"]}`:           "web old",
		`all=1&filters={"network":["aaaa"]}`:          "web old",
		`all=1&filters={"network":["nosuch"]}`:        "",
		`all=1&filters={"volume":["/srv"]}`:           "web old",
		`all=1&filters={"id":["dd"]}`:                 "old",
		`all=1&filters={"publish":["80"]}`:            "",
		`filters={"status":["nonsense"]}`:             "400 invalid filter 'status=nonsense': ",
		`filters={"nosuch":["x"]}`:                    "400 invalid filter 'nosuch'",
		`filters={"exited":["x"]}`:                    "400 invalid filter 'exited=x': ",
		`limit=x`:                                     `400 invalid value for "limit": `,
		`all=1&filters={"before":["nosuch"]}`:         "404 No such container: nosuch",
		`all=1&filters={"health":["splendid"]}`:       "400 invalid filter 'health=splendid': ",
		`all=1&filters={"is-task":["true"]}`:          "",
		`all=1&filters={"publish":["1000-1090"]}`:     "web old",
		`all=1&filters={"publish":["8080"]}`:          "",
		`all=1&filters={"expose":["8080"]}`:           "web old",
		`all=1&filters={"publish":["1000-1090/udp"]}`: "",
		`all=1&filters={"expose":["9000-8000"]}`:      "400 invalid filter: ",
	} {
		w := ask(s, "GET", "/containers/json?"+strings.NewReplacer(`"`, "%22", "{", "%7B", "}", "%7D", "[", "%5B", "]", "%5D").Replace(query), "")
		if w.Code != 200 {
			if got := statusAndMessage(t, w); !strings.HasPrefix(got, want) || want == "" {
				t.Errorf("%s: %s, want %s", query, got, want)
			}
			continue
		}
		var list []mobycontainer.Summary
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range list {
			names = append(names, strings.TrimPrefix(c.Names[0], "/"))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if got := s.summary(old, s.now(), newest); got.Command != "sh -c 'echo hi'" || got.Status != "Exited (7) About a minute ago" {
		t.Errorf("%q %q", got.Command, got.Status)
	}
}

func TestVerbs(t *testing.T) {
	f, n := &fakeContainers{all: []record{webContainer()}}, &fakeNetworking{}
	s := newTestServer(t, n, f)
	for _, path := range []string{"/start", "/stop", "/stop?t=3&signal=HUP", "/kill?signal=USR1", "/rename?name=new", "/restart?t=-1"} {
		if w := ask(s, "POST", "/v1.44/containers/web"+path, ""); w.Code != http.StatusNoContent {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	id := string(ctrID)
	want := []string{"start web", "stop web  default", "stop web HUP 3s", "kill web USR1", "rename " + id + " new", "stop " + id + "  -1s", "start " + id}
	if diff := cmp.Diff(want, f.did); diff != "" {
		t.Error(diff)
	}
	if n.renamed != "web" { // the fake keeps its name
		t.Errorf("the controller was told %q", n.renamed)
	}
	f.refuse = linkspan.Errorf(linkspan.ErrNotModified, "runs")
	if w := ask(s, "POST", "/containers/web/start", ""); w.Code != 304 || w.Body.Len() > 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := statusAndMessage(t, ask(s, "POST", "/containers/web/stop?t=x", "")); got != `400 invalid value for "t": "x" is not a number` {
		t.Error(got)
	}
	if got := statusAndMessage(t, ask(s, "POST", "/containers/web/wait?condition=x", "")); got != `400 invalid condition: "x"` {
		t.Error(got)
	}
}

// A rename that the controller refuses is taken back.
func TestRenameIsOneThing(t *testing.T) {
	f := &fakeContainers{all: []record{webContainer()}}
	s := newTestServer(t, &fakeNetworking{refuse: linkspan.Errorf(linkspan.ErrUnavailable, "the disk is full")}, f)
	if got := statusAndMessage(t, ask(s, "POST", "/containers/web/rename?name=new", "")); got != "503 the disk is full" {
		t.Error(got)
	}
	if last := f.did[len(f.did)-1]; last != fmt.Sprintf("rename %s web", ctrID) {
		t.Errorf("%q", f.did)
	}
}

func BenchmarkListContainers(b *testing.B) {
	f := &fakeContainers{}
	for range 1000 {
		f.all = append(f.all, webContainer())
	}
	s := New(Options{Networks: &fakeNetworking{settings: webSettings()}, Containers: f, Events: NewEvents(), Logf: b.Logf})
	for b.Loop() {
		ask(s, "GET", "/containers/json", "")
	}
}

// Containers are found by the image they were made of under any of its names, and
// by those that it was made of.
func TestListByAncestor(t *testing.T) {
	f := &fakeContainers{}
	s := newTestServer(t, &fakeNetworking{settings: webSettings()}, f)
	base, err := s.images.Import(bytes.NewReader(large(t, 1<<10)), image.ImportOptions{Name: "base"})
	must(t, err)
	parent := base
	for _, name := range []string{"child", "grandchild"} {
		made, err := s.images.Commit(bytes.NewReader(large(t, 2<<10)), image.CommitOptions{Parent: string(parent.ID), Name: name})
		must(t, err)
		c := webContainer()
		c.ID, c.Name, c.Image, c.Config.Image = linkspan.ID(name), name, string(made.ID), name
		f.all, parent = append(f.all, c), made
	}
	for ref, want := range map[string]string{
		"base": "child grandchild", "base:latest": "child grandchild", base.ID.Encoded()[:12]: "child grandchild", string(base.ID): "child grandchild",
		"child": "child grandchild", "grandchild": "grandchild", string(parent.ID): "grandchild", "nonesuch": "",
	} {
		var list []mobycontainer.Summary
		w := ask(s, "GET", `/containers/json?all=1&filters=`+escape(`{"ancestor":["`+ref+`"]}`), "")
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
			t.Fatal(w.Body, err)
		}
		var names []string
		for _, c := range list {
			names = append(names, strings.TrimPrefix(c.Names[0], "/"))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", ref, got, want)
		}
	}
}
