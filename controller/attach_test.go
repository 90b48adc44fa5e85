package controller_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
)

// also adds a network to those that a container wants.
func also(name string) func(*controller.Container) {
	return func(c *controller.Container) { c.Networking.EndpointsConfig[name] = &apinetwork.EndpointSettings{} }
}

func TestConnectAndDisconnectLive(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.network(t, "side", subnet("10.78.0.0/24"))
	web := spec("web", "lab")
	a := d.run(t, web)
	before := settled(t, m)
	for range 2 { // the second round must find no trace of the first, not even a name
		must(t, d.Connect(t.Context(), "side", web.ID, &apinetwork.EndpointSettings{GwPriority: 1, Aliases: []string{"www"}}))
		got := m.Sh(t, "ip -n "+nsOf(a)+" route")
		if !strings.Contains(got, "default via 10.78.0.1 dev eth1") {
			t.Errorf("the gateway did not follow its priority:\n%s", got)
		}
		hosts, err := os.ReadFile(a.Hosts)
		must(t, err)
		if !strings.Contains(string(hosts), "10.78.0.2\tweb") {
			t.Errorf("hosts does not know the new address:\n%s", hosts)
		}
		s := d.Settings(web.ID).Networks["side"]
		if s == nil || s.IPAddress.String() != "10.78.0.2" || s.GwPriority != 1 {
			t.Errorf("settings: %+v", s)
		}
		must(t, d.Disconnect(t.Context(), "side", web.ID, false))
		if got := m.Sh(t, "ip -n "+nsOf(a)+" -o link"); strings.Contains(got, "eth1") {
			t.Errorf("eth1 is there after disconnecting:\n%s", got)
		}
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" {
		t.Errorf("after disconnecting:\n%s", diff)
	}
	if err := d.Disconnect(t.Context(), "side", web.ID, false); err == nil || !strings.Contains(err.Error(), "is not connected to network side") {
		t.Errorf("second disconnect: %v", err)
	}
	d.clear(t)
}

// One container is connected and disconnected by many at once. Each hears that
// it is done, or that another was faster: its default route, which follows the
// connection, is never one by a link that is gone.
func TestManyConnectOneContainer(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.network(t, "front", subnet("10.78.0.0/24"))
	web := spec("web", "lab")
	a := d.run(t, web)
	before := m.Sh(t, "ip -n "+nsOf(a)+" route")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				for _, err := range []error{d.Connect(t.Context(), "front", web.ID, nil), d.Disconnect(t.Context(), "front", web.ID, false)} {
					if err != nil && !strings.Contains(err.Error(), "already exists in network") && !strings.Contains(err.Error(), "is not connected to network") && !errors.Is(err, linkspan.ErrConflict) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := d.Disconnect(t.Context(), "front", web.ID, false); err != nil && !strings.Contains(err.Error(), "is not connected") {
		t.Error(err)
	}
	if diff := nstest.Diff(before, m.Sh(t, "ip -n "+nsOf(a)+" route")); diff != "" {
		t.Errorf("the routes of before are not back:\n%s", diff)
	}
	d.clear(t)
}

// Explaining a connection says what connecting then does, and changes nothing.
func TestExplainConnect(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.network(t, "side", subnet("10.78.0.0/24"))
	web := spec("web", "lab")
	d.run(t, web)
	before := settled(t, m)
	plan, err := d.ExplainConnect("side", web.ID, &apinetwork.EndpointSettings{GwPriority: 1})
	must(t, err)
	for _, want := range []string{"type veth peer name eth1", "addr add 10.78.0.2/24", "route add default via 10.78.0.1 dev eth1"} {
		if !strings.Contains(plan.String(), want) {
			t.Errorf("the plan lacks %q:\n%s", want, plan)
		}
	}
	if plan, err = d.ExplainDisconnect("lab", web.ID); err != nil || !strings.Contains(plan.String(), "peer name eth0") {
		t.Errorf("disconnect: %v\n%s", err, plan)
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" {
		t.Errorf("explaining changed:\n%s", diff)
	}
	if len(d.Settings(web.ID).Networks) != 1 {
		t.Error("explaining recorded a wish")
	}
	d.clear(t)
}

func TestStaticAddressIsHeldWhileContainerExists(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	first := spec("first", "lab", ip4("10.77.0.2"))
	must(t, d.Reserve(first)) // exists, never started
	second := spec("second", "lab")
	d.run(t, second)
	if got := d.Settings(second.ID).Networks["lab"].IPAddress.String(); got != "10.77.0.3" {
		t.Errorf("a dynamic lease got %s, which container first holds", got)
	}
	thief := spec("thief", "lab", ip4("10.77.0.2"))
	must(t, d.Reserve(thief))
	_, err := d.Attach(t.Context(), thief.ID)
	if !errors.Is(err, linkspan.ErrForbidden) || !strings.Contains(err.Error(), "Address already in use") || !strings.Contains(err.Error(), "container first") {
		t.Errorf("taking a held address: %v", err)
	}
	d.attach(t, first.ID) // the elder has it, and it is no matter that others want it
	must(t, d.Detach(t.Context(), first.ID))
	must(t, d.Forget(first.ID))
	d.attach(t, thief.ID)
	d.clear(t)
}

func TestRefusals(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.run(t, spec("web", "lab", ip4("10.77.0.9")))
	tests := map[string]struct {
		container controller.Container
		kind      error
		text      string
	}{
		"outside":         {spec("a", "lab", ip4("10.99.0.9")), linkspan.ErrInvalid, "no configured subnet contains IP address 10.99.0.9"},
		"taken":           {spec("a", "lab", ip4("10.77.0.9")), linkspan.ErrForbidden, "held by container web on network lab"},
		"gateway":         {spec("a", "lab", ip4("10.77.0.1")), linkspan.ErrForbidden, "Address already in use"},
		"network missing": {spec("a", "nowhere"), linkspan.ErrNotFound, "network nowhere not found"},
		"same name":       {spec("web", "lab"), linkspan.ErrForbidden, "endpoint with name web already exists in network lab"},
		"default static":  {spec("a", "bridge", ip4("172.17.0.9")), linkspan.ErrInvalid, "user-defined networks only"},
		"empty donor":     {spec("a", "container:"), linkspan.ErrInvalid, "invalid container format"},
		"no donor":        {spec("a", "container:nobody"), linkspan.ErrNotFound, "No such container: nobody"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := settled(t, m)
			err := d.Reserve(test.container)
			if err == nil {
				_, err = d.Attach(t.Context(), test.container.ID)
			}
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v, want %v: …%s…", err, test.kind, test.text)
			}
			must(t, d.Forget(test.container.ID))
			if diff := nstest.Diff(before, settled(t, m)); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
		})
	}
	d.clear(t)
}

func TestModes(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	alone := d.run(t, spec("alone", "none"))
	if got := m.Sh(t, "ip -n "+nsOf(alone)+" -br link"); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "lo") {
		t.Errorf("links of a container without network:\n%s", got)
	}
	if shared := d.run(t, spec("shared", "container:alone")); shared.Netns != alone.Netns || shared.Hosts != alone.Hosts {
		t.Errorf("the sandbox is not shared: %+v, %+v", shared, alone)
	}
	if shared := d.run(t, spec("further", "container:shared")); shared.Netns != alone.Netns || shared.Hosts != alone.Hosts {
		t.Errorf("borrowed %+v, not %+v", shared, alone)
	}
	onHost, lonely := spec("own", "host"), spec("lonely", "none")
	if own := d.run(t, onHost); own.Netns != "" {
		t.Errorf("a container in host mode got namespace %s", own.Netns)
	}
	d.run(t, lonely)
	// Clients see an endpoint on the network that the mode names.
	members := func(name string) (all []string) {
		n, err := d.Network(name)
		must(t, err)
		for _, e := range d.Endpoints(n.ID) {
			if e.ID == "" || string(e.ID) != d.Settings(e.Owner).Networks[name].EndpointID {
				t.Errorf("%s has endpoint %q on network %s", e.Name, e.ID, name)
			}
			all = append(all, e.Name)
		}
		return all
	}
	if got := fmt.Sprint(members("host"), members("none")); got != "[own] [alone lonely]" {
		t.Errorf("on networks host and none are %s", got)
	}
	// One that leaves network none may join others, and has left it for good.
	d.network(t, "lab", subnet("10.77.0.0/24"))
	must(t, d.Disconnect(t.Context(), "none", lonely.ID, false))
	must(t, d.Connect(t.Context(), "lab", lonely.ID, nil))
	must(t, d.Detach(t.Context(), lonely.ID))
	d.attach(t, lonely.ID)
	if s := d.Settings(lonely.ID).Networks; len(s) != 1 || s["lab"] == nil || !s["lab"].IPAddress.IsValid() {
		t.Errorf("networks of a container that left network none: %v", s)
	}
	must(t, d.Detach(t.Context(), onHost.ID))
	if got := fmt.Sprint(members("host"), members("none")); got != "[] [alone]" {
		t.Errorf("still on networks host and none: %s", got)
	}
	for name, want := range map[string]string{"host": "connect disconnect", "none": "connect connect disconnect"} {
		n, err := d.Network(name)
		must(t, err)
		var got []string
		for _, e := range d.eventsOf(n.ID) {
			if e.Container != "" {
				got = append(got, e.Action)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("events of network %s: %v, want %s", name, got, want)
		}
	}
	d.clear(t)
}

func TestNamesAreAnswered(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.run(t, spec("web", "lab", func(c *controller.Container) {
		c.Networking.EndpointsConfig["lab"].Aliases = []string{"www"}
	}))
	a := d.run(t, spec("probe", "lab"))
	ask := func(question string) string {
		return strings.TrimSpace(m.Sh(t, "nsenter --net="+a.Netns+" dig +time=2 +tries=1 @127.0.0.11 "+question))
	}
	for question, want := range map[string]string{
		"+short web":              "10.77.0.2",
		"+short www":              "10.77.0.2",
		"+short +tcp web":         "10.77.0.2",
		"+short web.lab":          "10.77.0.2",
		"+short -x 10.77.0.2":     "web.lab.",
		"+short web AAAA":         "",
		"+noall +comments nobody": "status: SERVFAIL",
	} {
		if got := ask(question); got != want && (want == "" || !strings.Contains(got, want)) {
			t.Errorf("dig %s: %q, want %q", question, got, want)
		}
	}
	d.clear(t)
}
