package export_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin/export"
	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/store/cluster"
	"github.com/linkspan/linkspan/store/etcdtest"
)

// patience is how long what should happen may take.
const patience = 90 * time.Second

// site is hosts on one switch, with the store of a cluster:
//
//	ant 192.0.2.1 ──┐
//	                ├── hub, with etcd 192.0.2.100
//	bee 192.0.2.2 ──┘
type site struct {
	t    *testing.T
	hub  *nstest.Machine
	etcd *etcdtest.Member
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, hub: nstest.New(t)}
	s.hub.Sh(t, "ip link add sw0 type bridge; ip addr add 192.0.2.100/24 dev sw0; ip link set sw0 up")
	s.etcd = etcdtest.Start(t, s.hub, etcdtest.Config{Addr: netip.AddrFrom4([4]byte{192, 0, 2, 100})})
	s.etcd.Ready(t)
	return s
}

// open opens the cluster for a host.
func (s *site) open(m *nstest.Machine, name string, number int, settings map[string]string) *cluster.Cluster {
	s.t.Helper()
	o, err := cluster.ParseStore("etcd://"+s.etcd.Endpoint(), settings)
	s.must(err)
	o.Dial = etcdtest.Dial(m)
	o.Self = cluster.Member{ID: linkspan.ID(fmt.Sprintf("%032x", number)), Name: name, VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(number)})}
	o.Logf = func(format string, args ...any) { s.t.Logf(name+": "+format, args...) }
	shared, err := cluster.Open(context.Background(), o)
	s.must(err)
	return shared
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) within(what string, holds func() bool) {
	s.t.Helper()
	if !nstest.Until(patience, holds) {
		s.t.Fatalf("it never came to pass: %s", what)
	}
}

// keys returns what the store has below a prefix.
func (s *site) keys(prefix string) string {
	s.t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{s.etcd.Endpoint()}, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{grpc.WithContextDialer(etcdtest.Dial(s.hub))},
	})
	s.must(err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	found, err := client.Get(ctx, "/linkspan/v1/"+prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	s.must(err)
	var keys []string
	for _, kv := range found.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return strings.Join(keys, "\n")
}

// engine is a host with an engine such as Docker and our plugin: it makes the calls
// that Docker makes, in its order.
type engine struct {
	*site
	name     string
	number   int
	m        *nstest.Machine
	dir      string
	settings map[string]string
	cluster  *cluster.Cluster
	client   *http.Client
	stop     func()
	macs     byte
}

func (s *site) engine(name string, number int, settings map[string]string) *engine {
	s.t.Helper()
	e := &engine{site: s, name: name, number: number, m: nstest.New(s.t), dir: s.t.TempDir(), settings: settings}
	s.hub.Sh(s.t, fmt.Sprintf(`ip link add %[1]s type veth peer name up0 netns %[2]s; ip link set %[1]s master sw0 up
		ip -n %[2]s addr add 192.0.2.%[3]d/24 dev up0; ip -n %[2]s link set up0 up`, name, e.m.Name(), number))
	socket := filepath.Join(e.dir, "linkspan.sock")
	e.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	e.start()
	s.t.Cleanup(func() { e.stop() })
	return e
}

// start starts the plugin; e.stop ends it as a crash between two calls does: what
// it made stays.
func (e *engine) start() {
	e.t.Helper()
	e.cluster = e.open(e.m, e.name, e.number, e.settings)
	driver, err := overlay.At(e.m.Host(), e.cluster.Self().VTEP)
	e.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	exporter, err := export.New(ctx, export.Options{
		Host: e.m.Host(), Drivers: map[string]drivers.Driver{"bridge": bridge.Driver{}, "overlay": driver}, Default: "bridge", Firewall: noRules{},
		Codec: op.NewCodec(), Dir: filepath.Join(e.dir, "state"), Scope: "local", Cluster: e.cluster,
		Bases4: ipam.DefaultBases(), Bases6: ipam.DefaultBases6("test"), Logf: func(format string, args ...any) { e.t.Logf(e.name+": "+format, args...) },
	})
	e.must(err)
	done := make(chan error, 1)
	socket := filepath.Join(e.dir, "linkspan.sock")
	os.Remove(socket) //nolint:errcheck // there may be none
	go func() { done <- exporter.Serve(ctx, socket) }()
	e.within("the plugin listens", func() bool { _, err := os.Stat(socket); return err == nil })
	e.stop = func() {
		cancel()
		if err := <-done; err != nil {
			e.t.Error(err)
		}
		if err := e.cluster.Close(); err != nil {
			e.t.Error(err)
		}
		e.stop = func() {}
	}
}

// try makes a call.
func (e *engine) try(call string, request, answer any) error {
	raw, err := json.Marshal(request)
	if err != nil {
		return err
	}
	response, err := e.client.Post("http://plugin/"+call, "application/json", bytes.NewReader(raw))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var refusal struct{ Err string }
		if err := json.NewDecoder(response.Body).Decode(&refusal); err != nil {
			return err
		}
		return fmt.Errorf("%s: %s", call, refusal.Err)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

func (e *engine) call(call string, request, answer any) {
	e.t.Helper()
	e.must(e.try(call, request, answer))
}

// lan is a network of the engine's.
type lan struct {
	id    string
	pools []string // IDs
	data  []wire.Pool
}

// wish is what docker network create says.
type wish struct {
	shared, subnet, subnet6, gateway string
	ipv6, internal                   bool
	options                          map[string]any
}

// create makes a network as Docker does, and takes back what a failure leaves.
func (e *engine) create(w wish) (lan, error) {
	n := lan{id: string(linkspan.NewID())}
	undo := func() {
		for _, id := range n.pools {
			e.must(e.try("IpamDriver.ReleasePool", wire.ReleasePoolRequest{PoolID: id}, nil))
		}
	}
	families := []string{w.subnet}
	if w.ipv6 {
		families = append(families, w.subnet6)
	}
	for i, subnet := range families {
		var pool wire.RequestPoolResponse
		err := e.try("IpamDriver.RequestPool", wire.RequestPoolRequest{
			AddressSpace: "LinkspanLocal", Pool: subnet, V6: i == 1, Options: map[string]string{export.OptionShared: w.shared},
		}, &pool)
		if err != nil {
			undo()
			return n, err
		}
		n.pools = append(n.pools, pool.PoolID)
		gateway := pool.Data[wire.OptionGateway]
		if gateway == "" || i == 0 && w.gateway != "" {
			var answer wire.RequestAddressResponse
			asked := ""
			if i == 0 {
				asked = w.gateway
			}
			if err := e.try("IpamDriver.RequestAddress", wire.RequestAddressRequest{PoolID: pool.PoolID, Address: asked, Options: map[string]string{wire.OptionAddressType: wire.OptionGateway}}, &answer); err != nil {
				undo()
				return n, err
			}
			gateway = answer.Address
		}
		n.data = append(n.data, wire.Pool{AddressSpace: "LinkspanLocal", Pool: pool.Pool, Gateway: gateway})
	}
	request := wire.CreateNetworkRequest{NetworkID: n.id, Options: map[string]any{wire.OptionGeneric: w.options}, IPv4Data: n.data[:1], IPv6Data: n.data[1:]}
	if w.internal {
		request.Options[wire.OptionInternal] = true
	}
	if err := e.try("NetworkDriver.CreateNetwork", request, nil); err != nil {
		undo()
		return n, err
	}
	return n, nil
}

func (e *engine) network(w wish) lan {
	e.t.Helper()
	n, err := e.create(w)
	e.must(err)
	return n
}

func (e *engine) remove(n lan) {
	e.t.Helper()
	e.call("NetworkDriver.DeleteNetwork", wire.NetworkRequest{NetworkID: n.id}, nil)
	for i, id := range n.pools {
		e.call("IpamDriver.ReleaseAddress", wire.ReleaseAddressRequest{PoolID: id, Address: strings.Split(n.data[i].Gateway, "/")[0]}, nil)
		e.call("IpamDriver.ReleasePool", wire.ReleasePoolRequest{PoolID: id}, nil)
	}
}

// box is a container: a namespace with a link of ours.
type box struct {
	name, mac, link string
	id              string // of the endpoint
	on              lan
	addrs           []netip.Prefix
}

// addr returns the address of a family.
func (b box) addr(i int) string { return b.addrs[i].Addr().String() }

// lease requests the addresses of an endpoint to be.
func (e *engine) lease(n lan, asked string) (box, error) {
	e.macs++
	b := box{
		name: fmt.Sprintf("%s-%d", e.name, e.macs), mac: fmt.Sprintf("02:42:00:00:%02x:%02x", e.number, e.macs),
		id: string(linkspan.NewID()), on: n,
	}
	for i, id := range n.pools {
		var answer wire.RequestAddressResponse
		if i > 0 {
			asked = ""
		}
		if err := e.try("IpamDriver.RequestAddress", wire.RequestAddressRequest{PoolID: id, Address: asked, Options: map[string]string{wire.OptionMAC: b.mac}}, &answer); err != nil {
			return b, err
		}
		prefix, err := netip.ParsePrefix(answer.Address)
		if err != nil {
			return b, err
		}
		b.addrs = append(b.addrs, prefix)
	}
	return b, nil
}

func (e *engine) endpoint(b box) error {
	given := &wire.Interface{Address: b.addrs[0].String(), MacAddress: b.mac}
	if len(b.addrs) > 1 {
		given.AddressIPv6 = b.addrs[1].String()
	}
	return e.try("NetworkDriver.CreateEndpoint", wire.CreateEndpointRequest{
		NetworkID: b.on.id, EndpointID: b.id, Interface: given, Options: map[string]any{wire.OptionContainerName: b.name},
	}, nil)
}

// run starts a container on a network.
func (e *engine) run(n lan) box {
	e.t.Helper()
	b, err := e.lease(n, "")
	e.must(err)
	e.must(e.endpoint(b))
	var joined wire.JoinResponse
	e.call("NetworkDriver.Join", wire.JoinRequest{NetworkID: n.id, EndpointID: b.id, SandboxKey: "/x"}, &joined)
	b.link = joined.InterfaceName.SrcName
	e.m.Sh(e.t, fmt.Sprintf("ip netns add %[1]s; ip link set %[2]s netns %[1]s; ip -n %[1]s link set %[2]s name eth0; ip -n %[1]s link set eth0 up; ip -n %[1]s link set lo up", b.name, b.link))
	for _, addr := range b.addrs {
		e.m.Sh(e.t, "ip -n "+b.name+" addr add "+addr.String()+" dev eth0 $(echo "+addr.String()+" | grep -q : && echo nodad)")
	}
	return b
}

// end takes a container down.
func (e *engine) end(b box) {
	e.t.Helper()
	e.m.Sh(e.t, fmt.Sprintf("ip -n %[1]s link set eth0 down; ip -n %[1]s link set eth0 name %[2]s; ip -n %[1]s link set %[2]s netns %[3]s; ip netns del %[1]s", b.name, b.link, e.m.Name()))
	e.call("NetworkDriver.Leave", wire.EndpointRequest{NetworkID: b.on.id, EndpointID: b.id}, nil)
	e.call("NetworkDriver.DeleteEndpoint", wire.EndpointRequest{NetworkID: b.on.id, EndpointID: b.id}, nil)
	e.release(b)
}

func (e *engine) release(b box) {
	e.t.Helper()
	for i, addr := range b.addrs {
		e.call("IpamDriver.ReleaseAddress", wire.ReleaseAddressRequest{PoolID: b.on.pools[i], Address: addr.Addr().String()}, nil)
	}
}

// reaches tells whether a container reaches an address.
func (e *engine) reaches(b box, addr string) bool {
	_, err := e.m.TrySh("ip netns exec " + b.name + " ping -n -c1 -W1 " + addr)
	return err == nil
}

// daemonNetwork makes a network of the cluster as a daemon of ours does.
func daemonNetwork(t *testing.T, c *cluster.Cluster, name, subnet string) network.Network {
	t.Helper()
	prefix := netip.MustParsePrefix(subnet)
	id, mac := linkspan.NewID(), network.RandomMAC()
	n, err := c.CreateNetwork(t.Context(), func(_ []network.Network, vni uint32) (network.Network, error) {
		return network.Network{
			ID: id, Name: name, Driver: "overlay", Scope: "global", Shared: true, IPv4: true, VNI: vni, MAC: mac,
			Pools: []ipam.Pool{{Subnet: prefix, Gateway: prefix.Addr().Next()}},
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
