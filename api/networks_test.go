package api

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/runtime"
)

func threeNetworks() *fakeNetworking {
	bridge := network.Network{ID: "1", Name: "bridge", Driver: "bridge", Scope: "local", Created: moment}
	none := network.Network{ID: "2", Name: "none", Driver: "null", Scope: "local", Created: moment}
	return &fakeNetworking{all: []network.Network{bridge, none, labNetwork()}, endpoints: []endpoint.Endpoint{labEndpoint()}}
}

func TestListNetworks(t *testing.T) {
	f := threeNetworks()
	idle := labNetwork()
	idle.ID, idle.Name, idle.Labels = "3", "lab-idle", nil
	f.all = append(f.all, idle)
	s := newTestServer(t, f, &fakeContainers{})
	for query, want := range map[string]string{
		``:                               "bridge none lab lab-idle",
		`{"name":{"lab":true}}`:          "lab lab-idle",
		`{"name":["^lab$"]}`:             "lab",
		`{"name":{"[":true}}`:            "",
		`{"id":{"aaaa":true}}`:           "lab",
		`{"driver":["null","host"]}`:     "none",
		`{"type":{"builtin":true}}`:      "bridge none",
		`{"type":{"custom":true}}`:       "lab lab-idle",
		`{"scope":{"swarm":true}}`:       "",
		`{"label":{"a=b":true}}`:         "lab",
		`{"label":{"a":true}}`:           "lab",
		`{"label":{"a=c":true}}`:         "",
		`{"dangling":{"true":true}}`:     "lab-idle",
		`{"dangling":{"0":true}}`:        "bridge none lab",
		`{"dangling":{"1":true,"0":{}}}`: "400 invalid filter: ",
		`{"dangling":["1","0"]}`:         `400 got more than one value for filter key "dangling"`,
		`{"dangling":{"x":true}}`:        `400 invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`,
		`{"type":{"x":true}}`:            "400 invalid filter: 'type'='x'",
		`{"nosuch":{"x":true}}`:          "400 invalid filter 'nosuch'",
		`{bad`:                           "400 invalid filter: ",
		`["a"]`:                          "400 invalid filter: ",
	} {
		w := ask(s, "GET", "/networks?filters="+escape(query), "")
		if w.Code != 200 {
			if got := "400 " + message(t, w); w.Code != 400 || !strings.HasPrefix(got, want) || !strings.HasPrefix(want, "400") {
				t.Errorf("%s: %d %s, want %s", query, w.Code, got, want)
			}
			continue
		}
		var list []struct{ Name string }
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
			t.Fatal(err)
		}
		names := make([]string, len(list))
		for i, n := range list {
			names[i] = n.Name
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestEmptyListIsAList(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	for _, path := range []string{"/networks", "/containers/json", "/images/json", "/plugins"} {
		if got := strings.TrimSpace(ask(s, "GET", path, "").Body.String()); got != "[]" {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestInspectNetwork(t *testing.T) {
	web := webContainer()
	s := newTestServer(t, threeNetworks(), &fakeContainers{all: []runtime.Container{web}})
	golden(t, "network-1.56.json", ask(s, "GET", "/v1.56/networks/lab", ""))
	golden(t, "network-1.50.json", ask(s, "GET", "/v1.50/networks/lab?verbose=true&scope=local", ""))
	golden(t, "networks-1.27.json", ask(s, "GET", "/v1.27/networks?filters="+escape(`{"name":{"lab":true}}`), ""))
	web.State.Pid = 0
	s = newTestServer(t, threeNetworks(), &fakeContainers{all: []runtime.Container{web}})
	if got := ask(s, "GET", "/networks/lab", "").Body.String(); !strings.Contains(got, `"ep-`+string(endID)+`":{`) {
		t.Errorf("an endpoint whose container has no process yet: %s", got)
	}
	spanning := threeNetworks()
	spanning.all[0].Shared = true
	s = newTestServer(t, spanning, &fakeContainers{})
	if got := ask(s, "GET", "/networks/"+spanning.all[0].Name, "").Body.String(); !strings.Contains(got, `"Peers":[{"Name":"ant","IP":"192.0.2.1"}]`) {
		t.Errorf("a network that spans hosts: %s", got)
	}
	for path, want := range map[string]string{
		"/networks/lab?verbose=x":     "invalid value for verbose: x: ",
		"/networks/lab?scope=swarm":   "network lab not found in scope swarm",
		"/networks/nosuch":            "network nosuch not found",
		"/networks/nosuch?scope=true": "network nosuch not found",
	} {
		if got := message(t, ask(s, "GET", path, "")); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestDoctor(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	for _, c := range []struct{ method, want string }{
		{"GET", `{"Findings":[{"Reason":"orphan","Severity":"note","What":"a","So":"b","Remedy":"c"}]}`},
		{"POST", `{"Findings":[]}`},
	} {
		w := ask(s, c.method, "/linkspan/v1/doctor", "")
		if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != c.want {
			t.Errorf("%s: %d %s, want %s", c.method, w.Code, got, c.want)
		}
	}
}

func TestUpdateNetwork(t *testing.T) {
	f := threeNetworks()
	s := newTestServer(t, f, &fakeContainers{})
	body := `{"Options":{"a":"b","c":null},"EnableIPv6":true,"Internal":false,"Pools":[{},{"Subnet":"10.9.0.0/24"},{"Subnet":"fd09::/64"}]}`
	for _, method := range []string{"PATCH", "POST"} {
		w := ask(s, method, "/linkspan/v1/networks/lab", body)
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"Name":"lab"`) {
			t.Errorf("%s: %d %s", method, w.Code, w.Body)
		}
		c := f.changes[len(f.changes)-1]
		if *c.Options["a"] != "b" || c.Options["c"] != nil || !*c.IPv6 || *c.Internal || c.IPv4 != nil || len(c.Pools) != 2 {
			t.Errorf("%s: change %+v", method, c)
		}
	}
	for body, want := range map[string]string{
		`{"Pools":[{"Gateway":"10.9.0.1"}]}`: "400 invalid network config:",

		`{"Pools":[{"Subnet":"10.9.0.0/24"},{"Subnet":"10.9.0.0/25"}]}`: "403 invalid pool request",

		`{"Options":[1]}`:  "400 invalid JSON",
		`{"Internal":"x"}`: "400 invalid JSON",
	} {
		if got := statusAndMessage(t, ask(s, "PATCH", "/linkspan/v1/networks/lab", body)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	if got := statusAndMessage(t, ask(s, "PATCH", "/linkspan/v1/networks/nosuch", "{}")); got != "404 network nosuch not found" {
		t.Errorf("a missing network: %s", got)
	}
}

func TestNetworkSpec(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	for body, want := range map[string]controller.NetworkSpec{
		`{"Name":"n","IPAM":{"Driver":"default","Options":{},"Config":[]}}`: {Name: "n", IPv4: true, IPAMDriver: "default"},
		`{"Name":"n","EnableIPv4":false,"EnableIPv6":true,"Internal":true,"Attachable":true,"Driver":"bridge","Labels":{"a":"b"},"Options":{"c":"d"},"NoSuch":[1]}`: {
			Name: "n", IPv6: true, Internal: true, Attachable: true, Driver: "bridge", Labels: map[string]string{"a": "b"}, Options: map[string]string{"c": "d"},
		},
		`{"Name":"n","Options":{"com.docker.network.enable_ipv4":"false","com.docker.network.enable_ipv6":"1"}}`: {
			Name: "n", IPv6: true, Options: map[string]string{"com.docker.network.enable_ipv4": "false", "com.docker.network.enable_ipv6": "1"},
		},
		`{"Name":"n","IPAM":{"Config":[{},{"Subnet":"10.7.0.0/24","IPRange":"10.7.0.128/25","Gateway":"10.7.0.9","AuxiliaryAddresses":{"r":"10.7.0.10"}},{"Subnet":"fd00::/64"}]}}`: {
			Name: "n", IPv4: true, Pools: []ipam.Pool{{Subnet: prefix("10.7.0.0/24"), Range: prefix("10.7.0.128/25"), Gateway: addr("10.7.0.9"), Aux: map[string]netip.Addr{"r": addr("10.7.0.10")}}},
		},
		`{"Name":"n","EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"::ffff:10.7.0.0/120"},{"Subnet":"fd00::/64"}]}}`: {
			Name: "n", IPv4: true, IPv6: true, Pools: []ipam.Pool{{Subnet: prefix("10.7.0.0/24")}, {Subnet: prefix("fd00::/64")}},
		},
	} {
		f := &fakeNetworking{}
		w := ask(newTestServer(t, f, &fakeContainers{}), "POST", "/networks/create", body)
		if w.Code != 201 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
			continue
		}
		if got, want := strings.TrimSpace(w.Body.String()), `{"Id":"`+string(netID)+`","Warning":""}`; got != want {
			t.Errorf("answer %s, want %s", got, want)
		}
		if diff := cmp.Diff(want, f.created[0], cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
	}
}

// What the daemon's flags say of new networks is there unless the client says
// otherwise, or borrows the settings.
func TestNetworkDefaults(t *testing.T) {
	defaults := map[string]map[string]string{"bridge": {"mtu": "1400", "com.docker.network.enable_ipv6": "true"}}
	for body, want := range map[string]controller.NetworkSpec{
		`{"Name":"n"}`: {Name: "n", IPv4: true, IPv6: true, Options: defaults["bridge"]},
		`{"Name":"n","EnableIPv6":false,"Options":{"mtu":"1300"}}`: {Name: "n", IPv4: true, Options: map[string]string{"mtu": "1300"}},
		`{"Name":"n","Driver":"macvlan"}`:                          {Name: "n", Driver: "macvlan", IPv4: true},
		`{"Name":"n","ConfigFrom":{"Network":"c"}}`:                {Name: "n", IPv4: true, ConfigFrom: "c"},
		`{"Name":"n","ConfigOnly":true,"Options":{"mtu":"1300"}}`:  {Name: "n", IPv4: true, ConfigOnly: true, Options: map[string]string{"mtu": "1300"}},
	} {
		f := &fakeNetworking{defaults: defaults}
		if w := ask(newTestServer(t, f, &fakeContainers{}), "POST", "/networks/create", body); w.Code != 201 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
			continue
		}
		if diff := cmp.Diff(want, f.created[0], cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
	}
	if len(defaults["bridge"]) != 2 {
		t.Errorf("the defaults have changed: %v", defaults)
	}
}

func TestNetworkRefusals(t *testing.T) {
	for body, want := range map[string]string{
		`{"Name":""}`: "400 invalid name: name is empty",
		`{"Name":"n","ConfigOnly":true,"Ingress":true}`:                                      "403 configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
		`{"Name":"n","Scope":"swarm"}`:                                                       "403 cannot create a swarm scoped network when swarm is not active",
		`{"Name":"n","Scope":"moon"}`:                                                        `400 invalid scope "moon": want local or global`,
		`{"Name":"n","Ingress":true}`:                                                        "403 Ingress network can only be global scope network",
		`{"Name":"n","Options":{"com.docker.network.enable_ipv6":"maybe"}}`:                  `400 driver-opt "com.docker.network.enable_ipv6" is not a valid bool`,
		`{"Name":"n","IPAM":{"Config":[{"Subnet":"10.7.0.1/24"}]}}`:                          "400 invalid network config:\ninvalid subnet 10.7.0.1/24: it should be 10.7.0.0/24",
		`{"Name":"n","IPAM":{"Config":[{"Subnet":"10.7.0.0/24","Gateway":"10.8.0.1"}]}}`:     "400 invalid network config:\ninvalid gateway 10.8.0.1: parent subnet 10.7.0.0/24 doesn't contain this address",
		`{"Name":"n","IPAM":{"Config":[{"Gateway":"10.8.0.1"}]}}`:                            "400 invalid network config:\ninvalid gateway 10.8.0.1: a gateway needs a subnet",
		`{"Name":"n","IPAM":{"Config":[{"Subnet":"10.7.0.0/24"},{"Subnet":"10.7.0.0/25"}]}}`: "403 invalid pool request: Pool overlaps with other one on this address space: 10.7.0.0/25 overlaps 10.7.0.0/24 of the same network; give another subnet",
		`{"Name":"n","IPAM":{"Config":[{"Subnet":"nonsense"}]}}`:                             `400 invalid JSON: netip.ParsePrefix("nonsense"): no '/'`,
	} {
		f := &fakeNetworking{}
		w := ask(newTestServer(t, f, &fakeContainers{}), "POST", "/networks/create", body)
		if got := statusAndMessage(t, w); got != want {
			t.Errorf("%s: %s\nwant %s", body, got, want)
		}
		if len(f.created) > 0 {
			t.Errorf("%s: created all the same", body)
		}
	}
}

func TestConnect(t *testing.T) {
	f, c := threeNetworks(), &fakeContainers{all: []record{webContainer()}}
	s := newTestServer(t, f, c)
	body := `{"Container":"web","EndpointConfig":{"MacAddress":"02:42:0a:4d:00:09"}}`
	for _, path := range []string{"/v1.53/networks/lab/connect", "/v1.54/networks/lab/connect"} {
		if w := ask(s, "POST", path, body); w.Code != 200 || w.Body.Len() != 0 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	want := []string{"lab " + string(ctrID) + " ", "lab " + string(ctrID) + " 02:42:0a:4d:00:09"}
	if diff := cmp.Diff(want, f.connected); diff != "" {
		t.Error(diff)
	}
	if got := statusAndMessage(t, ask(s, "POST", "/networks/lab/connect", `{"Container":"nosuch"}`)); got != "404 No such container: nosuch" {
		t.Error(got)
	}
	c.all[0].State.Status = "removing"
	if got := statusAndMessage(t, ask(s, "POST", "/networks/lab/disconnect", `{"Container":"web"}`)); got != "500 Container "+string(ctrID)+" is marked for removal and cannot be connected or disconnected to the network" {
		t.Error(got)
	}
}
