package api

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/drivers"
	joined "github.com/linkspan/linkspan/drivers/container"
	"github.com/linkspan/linkspan/drivers/host"
	"github.com/linkspan/linkspan/drivers/none"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/runtime/image"
	"github.com/linkspan/linkspan/runtime/volume"
	"github.com/linkspan/linkspan/store/cluster"
)

// moment is when everything in these tests happens.
var moment = time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)

const (
	netID linkspan.ID = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	boxID linkspan.ID = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0"
	ctrID linkspan.ID = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	endID linkspan.ID = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
)

// fakeNetworking holds what a test puts in and writes down what it is told.
type fakeNetworking struct {
	Networking // methods that no test needs panic
	all        []network.Network
	endpoints  []endpoint.Endpoint
	settings   container.NetworkSettings
	changes    []controller.NetworkChange
	repaired   bool
	created    []controller.NetworkSpec
	connected  []string
	renamed    string
	refuse     error
	defaults   map[string]map[string]string
}

func (f *fakeNetworking) DefaultOptions(driver string) map[string]string { return f.defaults[driver] }

func (f *fakeNetworking) Linked(linkspan.ID) []controller.Linked { return nil }

func (f *fakeNetworking) LinkNames(linkspan.ID) []string { return nil }

func (f *fakeNetworking) Networks() []network.Network { return f.all }

// CheckWishes is the controller's own: it depends on no state.
func (f *fakeNetworking) CheckWishes(c controller.Container) error {
	return controller.New(controller.Options{Drivers: map[string]drivers.Driver{"host": host.Driver{}, "null": none.Driver{}, "container": joined.Driver{}}}).CheckWishes(c)
}

func (f *fakeNetworking) Cables(linkspan.ID) ([]controller.Cable, error) {
	return []controller.Cable{{Network: "lab", Interface: "eth0", HostLink: "veth0123456", HostIndex: 7, Bridge: "br-lab", Port: 1}}, nil
}

func (f *fakeNetworking) Network(ref string) (network.Network, error) {
	for _, n := range f.all {
		if n.Name == ref || string(n.ID) == ref {
			return n, nil
		}
	}
	return network.Network{}, linkspan.Errorf(linkspan.ErrNotFound, "network %s not found", ref)
}

func (f *fakeNetworking) Endpoints(id linkspan.ID) []endpoint.Endpoint {
	var found []endpoint.Endpoint
	for _, e := range f.endpoints {
		if e.Network == id {
			found = append(found, e)
		}
	}
	return found
}

func (f *fakeNetworking) Peers(n network.Network) []cluster.Member {
	if !n.Shared {
		return nil
	}
	return []cluster.Member{{Name: "ant", VTEP: netip.MustParseAddr("192.0.2.1")}}
}

func (f *fakeNetworking) Status(id linkspan.ID) []controller.PoolStatus {
	for _, n := range f.all {
		if n.ID == id && len(n.Pools) > 0 {
			return []controller.PoolStatus{{Pool: n.Pools[0], InUse: 4, Available: 252}}
		}
	}
	return nil
}

func (f *fakeNetworking) CreateNetwork(_ context.Context, spec controller.NetworkSpec) (network.Network, error) {
	f.created = append(f.created, spec)
	return network.Network{ID: netID}, f.refuse
}

func (f *fakeNetworking) Degraded(network.Network) error { return nil }

func (f *fakeNetworking) PortSecurity(network.Network) (controller.PortSecurity, bool) {
	return controller.PortSecurity{}, false
}

func (f *fakeNetworking) Diagnose(context.Context) ([]doctor.Finding, error) {
	if f.repaired {
		return nil, f.refuse
	}
	return []doctor.Finding{{Reason: doctor.ReasonOrphan, Severity: doctor.Note, What: "a", So: "b", Remedy: "c"}}, f.refuse
}

func (f *fakeNetworking) Repair(context.Context) { f.repaired = true }

func (f *fakeNetworking) UpdateNetwork(_ context.Context, ref string, change controller.NetworkChange) (network.Network, error) {
	f.changes = append(f.changes, change)
	n, err := f.Network(ref)
	return n, cmp.Or(f.refuse, err)
}

func (f *fakeNetworking) ExplainUpdate(ref string, change controller.NetworkChange) (op.Plan, error) {
	if _, err := f.Network(ref); err != nil || len(change.Labels) > 0 {
		return nil, err
	}
	return op.Plan{{Why: "Smaller.", Op: op.SetMTU{Link: "br-lab", MTU: 1400, Was: 1500}}}, nil
}

func (f *fakeNetworking) Connect(_ context.Context, ref string, owner linkspan.ID, s *apinetwork.EndpointSettings) error {
	mac := ""
	if s != nil {
		mac = s.MacAddress.String()
	}
	f.connected = append(f.connected, ref+" "+string(owner)+" "+mac)
	return f.refuse
}

func (f *fakeNetworking) Rename(_ linkspan.ID, name string) error {
	f.renamed = name
	return f.refuse
}

func (f *fakeNetworking) Settings(linkspan.ID) container.NetworkSettings { return f.settings }

func (f *fakeNetworking) ExplainCreate(context.Context, controller.NetworkSpec) (op.Plan, error) {
	return op.Plan{{Why: "A bridge.", Op: op.SetUp{Link: "br-lab"}}}, f.refuse
}

func (f *fakeNetworking) ExplainAttach(controller.Container) (op.Plan, error) {
	return op.Plan{{Why: "A sandbox.", Op: op.AddNetns{Name: "linkspan-x"}}}, f.refuse
}

// The container dd does not run.
func (f *fakeNetworking) ExplainConnect(_ string, owner linkspan.ID, _ *apinetwork.EndpointSettings) (op.Plan, error) {
	if owner == "dd" {
		return nil, nil
	}
	return op.Plan{{Why: "A cable.", Op: op.SetUp{Link: "veth0"}}}, f.refuse
}

func (f *fakeNetworking) ExplainDisconnect(ref string, owner linkspan.ID) (op.Plan, error) {
	return f.ExplainConnect(ref, owner, nil)
}

func (f *fakeNetworking) ExplainRemove(string) (op.Plan, error) {
	return op.Plan{{Why: "First.", Op: op.AddNetns{Name: "one"}}, {Why: "Second.", Op: op.AddNetns{Name: "two"}}}, nil
}

// fakeContainers holds containers that nothing happens to.
type fakeContainers struct {
	Containers // methods that no test needs panic
	all        []runtime.Container
	requests   []runtime.Request
	did        []string
	refuse     error
	stream     *fakeStream
	exec       runtime.Exec
	execs      []string      // of the container that is inspected
	execEnded  chan struct{} // ExecWait waits for it; nil: it does not wait
}

func (f *fakeContainers) List() []runtime.Container { return f.all }

func (f *fakeContainers) Get(ref string) (runtime.Container, error) {
	for _, c := range f.all {
		if c.Name == ref || string(c.ID) == ref {
			return c, nil
		}
	}
	return runtime.Container{}, linkspan.Errorf(linkspan.ErrNotFound, "No such container: %s", ref)
}

func (f *fakeContainers) Create(_ context.Context, q runtime.Request) (runtime.Container, []string, error) {
	f.requests = append(f.requests, q)
	return runtime.Container{ID: ctrID}, nil, f.refuse
}

// Waiter finds no run that could be waited for.
func (f *fakeContainers) Waiter(ref string, _ container.WaitCondition) (*runtime.Waiter, error) {
	return nil, linkspan.Errorf(linkspan.ErrNotFound, "No such container: %s", ref)
}

func (f *fakeContainers) note(what string) error {
	f.did = append(f.did, what)
	return f.refuse
}

func (f *fakeContainers) Start(_ context.Context, ref string) error { return f.note("start " + ref) }

func (f *fakeContainers) Kill(_ context.Context, ref, signal string) error {
	return f.note("kill " + ref + " " + signal)
}

func (f *fakeContainers) Rename(_ context.Context, ref, name string) error {
	return f.note("rename " + ref + " " + name)
}

func (f *fakeContainers) Stop(_ context.Context, ref string, o runtime.StopOptions) error {
	timeout := "default"
	if o.Timeout != nil {
		timeout = o.Timeout.String()
	}
	return f.note("stop " + ref + " " + o.Signal + " " + timeout)
}

func (f *fakeContainers) Attach(context.Context, string, runtime.AttachOptions) (runtime.Stream, error) {
	return f.stream, f.refuse
}

func (f *fakeContainers) ExecInspect(string) (runtime.Exec, error) { return f.exec, nil }

func (f *fakeContainers) Execs(linkspan.ID) []string { return f.execs }

func (f *fakeContainers) ExecStart(context.Context, string, container.ExecStartRequest) (runtime.Stream, error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	return f.stream, nil
}

// ExecWait returns when the test says that the process has ended.
func (f *fakeContainers) ExecWait(context.Context, string) (runtime.Exec, error) {
	if f.execEnded != nil {
		<-f.execEnded
	}
	return f.exec, nil
}

// fakeStream is a process that says its output once its input has ended, or at
// once.
type fakeStream struct {
	mu     sync.Mutex
	input  strings.Builder
	ended  chan struct{}
	once   sync.Once
	closed chan struct{}
	shut   sync.Once
	output io.Reader
}

func newFakeStream(output string) *fakeStream {
	return &fakeStream{ended: make(chan struct{}), closed: make(chan struct{}), output: strings.NewReader(output)}
}

func (f *fakeStream) Read(p []byte) (int, error) {
	select {
	case <-f.ended:
		return f.output.Read(p)
	case <-f.closed:
		return 0, io.ErrClosedPipe
	}
}

func (f *fakeStream) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.input.Write(p)
}

func (f *fakeStream) CloseWrite() error { f.once.Do(func() { close(f.ended) }); return nil }
func (f *fakeStream) Close() error      { f.shut.Do(func() { close(f.closed) }); return nil }

func (f *fakeStream) read() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.input.String()
}

func labNetwork() network.Network {
	return network.Network{
		ID: netID, Name: "lab", Driver: "bridge", Scope: "local", Created: moment, IPv4: true, IPAMDriver: "default", Labels: map[string]string{"a": "b"},
		Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("10.77.0.0/24"), Gateway: netip.MustParseAddr("10.77.0.1")}},
	}
}

func labEndpoint() endpoint.Endpoint {
	return endpoint.Endpoint{
		ID: endID, Network: netID, Owner: ctrID, Name: "web", IPv4: netip.MustParsePrefix("10.77.0.2/24"), MAC: "02:42:0a:4d:00:02",
	}
}

func webContainer() runtime.Container {
	return runtime.Container{
		ID: ctrID, Name: "web", Created: moment, Rootfs: "/",
		Config:     &container.Config{Cmd: []string{"sleep", "99"}, Labels: map[string]string{"a": "b"}},
		HostConfig: &container.HostConfig{NetworkMode: "lab", Binds: []string{"/srv:/srv:ro"}},
		State:      runtime.State{Status: container.StateRunning, Pid: 4242, StartedAt: moment},
		Mounts: []runtime.Mount{{MountPoint: container.MountPoint{
			Type: "bind", Source: "/srv", Destination: "/srv", Mode: "ro", Propagation: "rprivate",
		}}},
	}
}

func webSettings() container.NetworkSettings {
	mac := apinetwork.HardwareAddr{2, 0x42, 10, 77, 0, 2}
	e := &apinetwork.EndpointSettings{
		NetworkID: string(netID), EndpointID: string(endID), MacAddress: mac, IPAddress: netip.MustParseAddr("10.77.0.2"), IPPrefixLen: 24,
		Gateway: netip.MustParseAddr("10.77.0.1"), DNSNames: []string{"web"},
	}
	return container.NetworkSettings{
		SandboxID: string(boxID), SandboxKey: "/run/netns/linkspan-b0b0b0b0b0b0", Ports: apinetwork.PortMap{},
		Networks: map[string]*apinetwork.EndpointSettings{"lab": e},
	}
}

func newTestServer(t testing.TB, n *fakeNetworking, c *fakeContainers) *Server {
	t.Helper()
	images, err := image.Open(image.Options{DataRoot: t.TempDir(), InUse: func() []image.User { return nil }, Events: func(image.Event) {}, Logf: t.Logf})
	must(t, err)
	volumes, err := volume.Open(volume.Options{DataRoot: t.TempDir(), Users: func() map[string][]linkspan.ID { return nil }, Events: func(volume.Event) {}, Logf: t.Logf})
	must(t, err)
	s := New(Options{
		Networks: n, Containers: c, Images: images, Volumes: volumes, Events: NewEvents(), Logf: t.Logf,
		About: About{ID: "test", Version: "0.1", DataRoot: "/data", ExecRoot: "/exec", NetworkDrivers: []string{"null", "bridge"}},
	})
	s.now = func() time.Time { return moment.Add(3 * time.Second) }
	return s
}

// ask makes one request; a body that is not empty is JSON.
func ask(s http.Handler, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// message returns what a refusal says.
func message(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var said struct{ Message string }
	if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || said.Message == "" {
		t.Fatalf("status %d without a message: %q", w.Code, w.Body)
	}
	return said.Message
}
