package api

import (
	"fmt"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	idle := webContainer()
	idle.ID, idle.Name, idle.State.Status = "dd", "idle", "exited"
	f, c := threeNetworks(), &fakeContainers{all: []record{webContainer(), idle}}
	free := labNetwork()
	free.ID, free.Name = "ff", "free"
	f.all = append(f.all, free)
	s := newTestServer(t, f, c)
	create := `{"Method":"POST","Path":"/containers/create?start=1&name=new","Body":{"Cmd":["sh","-c","ls"],"HostConfig":{` + rootfs + `}}}`
	for body, want := range map[string][]string{
		`{"Method":"POST","Path":"/networks/create","Body":{"Name":"n"}}`:       {"# A bridge.\nip link set br-lab up\n"},
		`{"Method":"POST","Path":"/v1.44/networks/create","Body":{"Name":"n"}}`: {"# A bridge.\n"},
		`{"Method":"DELETE","Path":"/networks/free"}`:                           {"# Second.\n", "two\n", "# First.\n", "one\n"},
		`{"Method":"POST","Path":"/networks/prune"}`:                            {"Network free"},
		create: {"  exec sh -c ls\n", "# A sandbox.\nip netns add linkspan-x\n"},
		strings.Replace(create, "start=1&", "", 1):                                                                          {"# A creation is a record", "ip netns add linkspan-x\n"},
		`{"Method":"POST","Path":"/containers/idle/start"}`:                                                                 {"exec sleep 99", "ip netns add"},
		`{"Method":"POST","Path":"/containers/web/start"}`:                                                                  {"# Container web runs already: nothing would be done.\n"},
		`{"Method":"POST","Path":"/containers/idle/stop"}`:                                                                  {"nothing would be done"},
		`{"Method":"DELETE","Path":"/containers/idle"}`:                                                                     {"The record of container idle"},
		`{"Method":"POST","Path":"/containers/web/pause"}`:                                                                  {"freezer"},
		`{"Method":"POST","Path":"/containers/web/rename?name=x"}`:                                                          {"known as x"},
		`{"Method":"POST","Path":"/networks/lab/connect","Body":{"Container":"idle"}}`:                                      {"would be recorded"},
		`{"Method":"PATCH","Path":"/linkspan/v1/networks/lab","Body":{"Options":{"com.docker.network.driver.mtu":"1400"}}}`: {"# Smaller.\nip link set br-lab mtu 1400\n"},
		`{"Method":"POST","Path":"/linkspan/v1/networks/lab","Body":{"Labels":{"a":"b"}}}`:                                  {"# The kernel would not notice"},
		`{"Method":"GET","Path":"/networks"}`:                                                                               {"400 GET /networks cannot be explained"},
		`{"Method":"DELETE","Path":"/networks/lab"}`:                                                                        {"403 error while removing network: network lab has active endpoints"},
		`{"Method":"DELETE","Path":"/networks/bridge"}`:                                                                     {"403 bridge is a pre-defined network and cannot be removed"},
		`{"Method":"DELETE","Path":"/networks/nosuch"}`:                                                                     {"404 network nosuch not found"},
		`{"Method":"DELETE","Path":"/containers/web"}`:                                                                      {"409 cannot remove container"},
		`{"Method":"POST","Path":"/networks/lab/connect","Body":{"Container":"web"}}`:                                       {"# A cable.\nip link set veth0 up\n"},
		`{"Method":"POST","Path":"/networks/lab/disconnect","Body":{"Container":"web"}}`:                                    {"Each of them would be undone", "ip link set veth0 up"},
		`{"Method":"POST","Path":"/networks/lab/disconnect","Body":{"Container":"idle"}}`:                                   {"would be forgotten"},
		`{"Method":"POST","Path":"/containers/create?name=web","Body":{"Cmd":["x"],"HostConfig":{` + rootfs + `}}}`:         {"409 Conflict. The container name"},
		`{"Method":"POST","Path":"/networks/create","Body":{"Name":""}}`:                                                    {"400 invalid name: name is empty"},
		`{"Method":"POST","Path":"no path"}`:                                                                                {"400 invalid path to explain"},
		`{"Method":"PO ST","Path":"/networks"}`:                                                                             {"400 invalid request to explain"},
		`{"Method":"POST","Path":"/v1.2/networks/create"}`:                                                                  {"400 client version 1.2 is too old"},
	} {
		w := ask(s, "POST", "/linkspan/v1/explain", body)
		got := w.Body.String()
		if w.Code != 200 {
			got = statusAndMessage(t, w)
		} else if kind := w.Header().Get("Content-Type"); kind != "text/plain; charset=utf-8" {
			t.Errorf("%s: %s", body, kind)
		}
		rest := got
		for _, part := range want {
			_, after, found := strings.Cut(rest, part)
			if !found {
				t.Errorf("%s: %q is not, or not in its place, in\n%s", body, part, got)
			}
			rest = after
		}
	}
	if did := fmt.Sprint(len(f.created), len(f.connected), f.renamed, len(c.did), len(c.requests)); did != "0 00 0" {
		t.Errorf("to explain did something: %s", did)
	}
}
