package export_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/drivers/macvlan"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin/check"
	"github.com/linkspan/linkspan/plugin/export"
	"github.com/linkspan/linkspan/plugin/plugintest"
	"github.com/linkspan/linkspan/sandbox"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// noRules is a firewall that is not there: rules are tested with their backends.
type noRules struct{}

func (noRules) Base() op.Plan                    { return nil }
func (noRules) Network(firewall.Network) op.Plan { return nil }

func (noRules) Ports(string, []sandbox.Port) op.Plan { return nil }

// serve offers the bridge driver on a machine, until stop.
func serve(t *testing.T, m *nstest.Machine, socket, dir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	exporter, err := export.New(ctx, export.Options{
		Host: m.Host(), Drivers: map[string]drivers.Driver{"bridge": bridge.Driver{}, "macvlan": macvlan.Driver{}}, Default: "bridge", Firewall: noRules{},
		Codec: op.NewCodec(), Dir: dir, Scope: "local", Bases4: ipam.DefaultBases(), Bases6: ipam.DefaultBases6("test"), Logf: t.Logf,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- exporter.Serve(ctx, socket) }()
	if !nstest.Until(10*time.Second, func() bool { _, err := os.Stat(socket); return err == nil }) {
		t.Fatal("the plugin does not listen")
	}
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// tried runs the tester inside a machine, where it can see the links.
func tried(t *testing.T, m *nstest.Machine, socket string) (broken int, report string) {
	t.Helper()
	err := m.Host().Inside("", func() (err error) {
		broken, err = check.Run(t.Context(), socket, func(f check.Finding) { report += f.String() + "\n" })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return broken, report
}

func TestExportKeepsTheProtocol(t *testing.T) {
	m := nstest.New(t)
	socket := filepath.Join(t.TempDir(), "linkspan.sock")
	dir := t.TempDir()
	stop := serve(t, m, socket, dir)
	before := m.Dump(t)
	broken, report := tried(t, m, socket)
	if broken != 0 {
		t.Errorf("%d broken:\n%s", broken, report)
	}
	for _, want := range []string{"link lks", "8 at once", "IpamDriver.ReleasePool"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	if !nstest.Until(10*time.Second, func() bool { return nstest.Diff(before, m.Dump(t)) == "" }) {
		t.Errorf("left behind:\n%s", nstest.Diff(before, m.Dump(t)))
	}
	stop()
}

// What was made outlives the process, and the machine's next life.
func TestExportKeepsNetworks(t *testing.T) {
	m := nstest.New(t)
	socket := filepath.Join(t.TempDir(), "linkspan.sock")
	dir := t.TempDir()
	post := func(call, body string) {
		t.Helper()
		out := m.Sh(t, "curl -sS --unix-socket "+socket+" -d '"+body+"' http://plugin/"+call)
		if strings.Contains(out, `"Err"`) {
			t.Fatalf("%s: %s", call, out)
		}
	}
	stop := serve(t, m, socket, dir)
	id := strings.Repeat("ab", 32)
	post("NetworkDriver.CreateNetwork", `{"NetworkID":"`+id+`","Options":{"com.docker.network.generic":{"com.docker.network.bridge.name":"lab0"}},"IPv4Data":[{"Pool":"10.77.0.0/24","Gateway":"10.77.0.1/24"}]}`)
	m.Sh(t, "ip addr show lab0 | grep 10.77.0.1/24")
	stop()
	m.Sh(t, "ip link del lab0")
	stop = serve(t, m, socket, dir)
	m.Sh(t, "ip addr show lab0 | grep 10.77.0.1/24")
	post("NetworkDriver.DeleteNetwork", `{"NetworkID":"`+id+`"}`)
	stop()
}

// A link that was made inside a namespace of its own comes out, and goes when it
// comes back.
func TestExportMacvlan(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add p0 type veth peer name p1; ip link set p0 up")
	socket := filepath.Join(t.TempDir(), "linkspan.sock")
	stop := serve(t, m, socket, t.TempDir())
	post := func(call, body string) string {
		t.Helper()
		out := m.Sh(t, "curl -sS --unix-socket "+socket+" -d '"+body+"' http://plugin/"+call)
		if strings.Contains(out, `"Err"`) {
			t.Fatalf("%s: %s", call, out)
		}
		return out
	}
	network, endpoint := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	named := `"NetworkID":"` + network + `","EndpointID":"` + endpoint + `"`
	before := m.Dump(t)
	post("NetworkDriver.CreateNetwork", `{"NetworkID":"`+network+`","Options":{"com.docker.network.generic":{"linkspan.driver":"macvlan","parent":"p0"}},"IPv4Data":[{"Pool":"10.77.0.0/24","Gateway":"10.77.0.1/24"}]}`)
	post("NetworkDriver.CreateEndpoint", `{`+named+`,"Interface":{"Address":"10.77.0.9/24"}}`)
	if out := post("NetworkDriver.Join", `{`+named+`,"SandboxKey":"/x"}`); !strings.Contains(out, `"SrcName":"lkscdcdcdc"`) {
		t.Errorf("Join: %s", out)
	}
	m.Sh(t, "ip -d link show lkscdcdcdc | grep macvlan; ip netns add box; ip link set lkscdcdcdc netns box; ip -n box link set lkscdcdcdc netns "+m.Name()+"; ip netns del box")
	post("NetworkDriver.Leave", `{`+named+`}`)
	post("NetworkDriver.DeleteEndpoint", `{`+named+`}`)
	post("NetworkDriver.DeleteNetwork", `{"NetworkID":"`+network+`"}`)
	if !nstest.Until(10*time.Second, func() bool { return nstest.Diff(before, m.Dump(t)) == "" }) {
		t.Errorf("left behind:\n%s", nstest.Diff(before, m.Dump(t)))
	}
	stop()
	m.Sh(t, "ip link del p0")
}

// The tester finds what is wrong with a driver that breaks the protocol.
func TestCheckFindsFaults(t *testing.T) {
	m := nstest.New(t)
	answers := map[string]string{
		"Plugin.Activate":                          `{"Implements":["NetworkDriver","IpamDriver"]}`,
		"NetworkDriver.GetCapabilities":            `{"Scope":"local"}`,
		"NetworkDriver.CreateEndpoint":             `{"Interface":{"Address":"10.9.9.9/24"}}`,
		"NetworkDriver.Join":                       `{"InterfaceName":{"SrcName":"nowhere0","DstPrefix":""},"Gateway":"10.0.0.1/24","StaticRoutes":[{"Destination":"10.1.0.0","RouteType":0}]}`,
		"IpamDriver.GetDefaultAddressSpaces":       `{}`,
		"IpamDriver.RequestPool":                   `{"PoolID":"p","Pool":"198.18.78.0/24"}`,
		"IpamDriver.RequestAddress":                `{"Address":"198.18.78.5/24"}`,
		"NetworkDriver.RevokeExternalConnectivity": `no JSON`,
	}
	socket := filepath.Join(t.TempDir(), "faulty.sock")
	plugintest.Serve(t, socket, plugintest.HTTP{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			answer = "{}"
		}
		w.Write([]byte(answer)) //nolint:errcheck // the tester has hung up
	})})
	broken, report := tried(t, m, socket)
	for _, want := range []string{
		"it answers address 10.9.9.9/24 where", "there is no such link", "DstPrefix", "want a bare address", "want a prefix",
		"LocalDefaultAddressSpace is empty", "198.18.78.5 was given twice", "though it is taken", "the answer is no JSON",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	if broken < 9 {
		t.Errorf("%d broken:\n%s", broken, report)
	}
}
