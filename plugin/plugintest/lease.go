package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// Engine asks the API of the engine that a plugin works for.
type Engine struct{ client *http.Client }

// NewEngine returns one that asks on a unix socket.
func NewEngine(socket string) Engine {
	return Engine{&http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Get reads a page into answer.
func (e Engine) Get(path string, answer any) error {
	response, err := e.client.Get("http://engine" + path) //nolint:noctx // the client has a time-out
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// engineNetwork is what plugins read of a network.
type engineNetwork struct {
	Name, Driver string
	Options      map[string]string
	IPAM         struct {
		Driver string
		Config []struct{ Subnet, Gateway string }
	}
	Containers map[string]struct{ EndpointID string }
}

// Leases stands for a driver that has addresses from a DHCP server: endpoints are
// cables to a bridge of the user's. It never says what it implements, insists on
// the IPAM driver null, asks the engine in the midst of its calls about their
// network, in the oldest version of the API that there is, and looks for the
// container's process as soon as there is one, to keep its lease up from inside.
type Leases struct {
	double
	engine  Engine
	state   sync.Mutex
	last    byte            // of the addresses
	watched map[string]bool // endpoints whose process was found
	// Watching gets the outcome of each search for a process.
	Watching chan error
}

// NewLeases returns a driver that makes its links on a machine.
func NewLeases(m *nstest.Machine, engine Engine) *Leases {
	return &Leases{double: double{machine: m}, engine: engine, last: 9, watched: make(map[string]bool), Watching: make(chan error, 16)}
}

// Handler returns what serves the driver.
func (l *Leases) Handler() Handler {
	return l.noted(Answers{
		"NetworkDriver.GetCapabilities":  fixed(map[string]string{"Scope": "local", "ConnectivityScope": "global"}),
		"NetworkDriver.CreateNetwork":    l.createNetwork,
		"NetworkDriver.DeleteNetwork":    fixed(struct{}{}),
		"NetworkDriver.CreateEndpoint":   l.createEndpoint,
		"NetworkDriver.DeleteEndpoint":   l.deleteEndpoint,
		"NetworkDriver.EndpointOperInfo": l.describe,
		"NetworkDriver.Join":             l.join,
		"NetworkDriver.Leave":            l.leave,
	})
}

const oldest = "/v1.13.1"

func (l *Leases) createNetwork(q Request) (any, error) {
	bridge := q.In("Options").In("com.docker.network.generic").Text("bridge")
	if bridge == "" {
		return nil, errors.New("bridge required")
	}
	pools, _ := q["IPv4Data"].([]any)
	for _, raw := range pools {
		pool := Request(raw.(map[string]any)) //nolint:forcetypeassert // the protocol says so
		if pool.Text("AddressSpace") != "null" || pool.Text("Pool") != "0.0.0.0/0" {
			return nil, fmt.Errorf("only the null IPAM driver is supported, not %v", pool)
		}
	}
	var all []engineNetwork
	if err := l.engine.Get(oldest+"/networks", &all); err != nil {
		return nil, err
	}
	for _, n := range all {
		for _, config := range n.IPAM.Config {
			if _, _, err := net.ParseCIDR(config.Subnet); err != nil && n.IPAM.Driver != "null" {
				return nil, err
			}
		}
	}
	return struct{}{}, l.sh("ip -d link show %s | grep -qw bridge", bridge)
}

// bridge asks the engine for the option that the network was made with.
func (l *Leases) bridge(q Request) (string, error) {
	var n engineNetwork
	if err := l.engine.Get(oldest+"/networks/"+q.Text("NetworkID"), &n); err != nil {
		return "", err
	}
	if len(n.Options) != 1 {
		return "", fmt.Errorf("unknown options: %v", n.Options)
	}
	return n.Options["bridge"], nil
}

func (l *Leases) createEndpoint(q Request) (any, error) {
	given := q.In("Interface")
	if given == nil || given.Text("Address") != "" || given.Text("AddressIPv6") != "" {
		return nil, fmt.Errorf("only the null IPAM driver is supported, not %v", given)
	}
	bridge, err := l.bridge(q)
	if err != nil {
		return nil, err
	}
	l.state.Lock()
	l.last++
	address, mac := fmt.Sprintf("10.203.0.%d/24", l.last), fmt.Sprintf("02:42:0a:cb:00:%02x", l.last)
	l.state.Unlock()
	id := q.Text("EndpointID")[:12]
	err = l.sh("ip link add dh-%[1]s type veth peer name %[1]s-dh address %[2]s; ip link set dh-%[1]s master %[3]s up; ip link set %[1]s-dh up", id, mac, bridge)
	return map[string]any{"Interface": map[string]string{"Address": address, "MacAddress": mac}}, err
}

func (l *Leases) deleteEndpoint(q Request) (any, error) {
	return struct{}{}, l.sh("ip link del dh-%s", q.Text("EndpointID")[:12])
}

func (l *Leases) describe(q Request) (any, error) {
	bridge, err := l.bridge(q)
	return map[string]any{"Value": map[string]string{"bridge": bridge, "veth_host": "dh-" + q.Text("EndpointID")[:12]}}, err
}

func (l *Leases) join(q Request) (any, error) {
	bridge, err := l.bridge(q)
	if err != nil {
		return nil, err
	}
	go func() { l.Watching <- l.watch(q) }()
	return map[string]any{
		"InterfaceName": map[string]string{"SrcName": q.Text("EndpointID")[:12] + "-dh", "DstPrefix": bridge},
		"Gateway":       "10.203.0.1", "StaticRoutes": []any{},
	}, nil
}

// watch waits for the container behind an endpoint, and asks for its process just
// once: there must be one by then, and the link in its namespace.
func (l *Leases) watch(q Request) error {
	container := ""
	var failed error
	found := nstest.Until(20*time.Second, func() bool {
		var n engineNetwork
		if failed = l.engine.Get(oldest+"/networks/"+q.Text("NetworkID"), &n); failed != nil {
			return true
		}
		for id, e := range n.Containers {
			if e.EndpointID == q.Text("EndpointID") && !strings.HasPrefix(id, "ep-") {
				container = id
			}
		}
		return container != ""
	})
	if failed != nil || !found {
		return errors.Join(failed, errors.New("no container found for the endpoint"))
	}
	var c struct{ State struct{ Pid int } }
	if err := l.engine.Get(oldest+"/containers/"+container+"/json", &c); err != nil {
		return err
	}
	// The engine moves the link when this plugin has answered.
	if !nstest.Until(20*time.Second, func() bool {
		return l.sh("nsenter --net=/proc/%d/ns/net ip addr | grep -q 'inet 10.203.0'", c.State.Pid) == nil
	}) {
		return fmt.Errorf("the link is not in the namespace of process %d", c.State.Pid)
	}
	l.state.Lock()
	defer l.state.Unlock()
	l.watched[q.Text("EndpointID")] = true
	return nil
}

func (l *Leases) leave(q Request) (any, error) {
	l.state.Lock()
	defer l.state.Unlock()
	if !l.watched[q.Text("EndpointID")] {
		return nil, errors.New("no sandbox for the endpoint")
	}
	delete(l.watched, q.Text("EndpointID"))
	return struct{}{}, nil
}
