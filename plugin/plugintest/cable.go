package plugintest

import (
	"fmt"
	"sync"

	"github.com/linkspan/linkspan/internal/nstest"
)

// Cable stands for a point-to-point driver: a network is one cable, made with
// it, whose two ends go to its endpoints in turn. So an end must come back from a
// sandbox under the name that it went by, or it is not there for the next.
type Cable struct {
	double
	state    sync.Mutex
	networks []*cable // by number; nil is free
}

type cable struct {
	id   string
	ends map[string]int // by endpoint
}

// NewCable returns a driver without networks.
func NewCable(m *nstest.Machine) *Cable { return &Cable{double: double{machine: m}} }

// Handler returns what serves the driver.
func (c *Cable) Handler() Handler {
	return c.noted(Answers{
		"Plugin.Activate":                           fixed(map[string]any{"Implements": []string{"NetworkDriver"}}),
		"NetworkDriver.GetCapabilities":             fixed(map[string]any{"Scope": "local", "ConnectivityScope": ""}),
		"NetworkDriver.AllocateNetwork":             fixed(nil),
		"NetworkDriver.CreateNetwork":               c.createNetwork,
		"NetworkDriver.DeleteNetwork":               c.deleteNetwork,
		"NetworkDriver.CreateEndpoint":              c.createEndpoint,
		"NetworkDriver.DeleteEndpoint":              c.deleteEndpoint,
		"NetworkDriver.EndpointOperInfo":            c.describe,
		"NetworkDriver.Join":                        c.join,
		"NetworkDriver.Leave":                       fixed(struct{}{}),
		"NetworkDriver.ProgramExternalConnectivity": fixed(struct{}{}),
		"NetworkDriver.RevokeExternalConnectivity":  fixed(struct{}{}),
	})
}

func (c *Cable) find(q Request) (number int, n *cable, err error) {
	for i, n := range c.networks {
		if n != nil && n.id == q.Text("NetworkID") {
			return i, n, nil
		}
	}
	return 0, nil, fmt.Errorf("network %s does not exist", q.Text("NetworkID"))
}

func (c *Cable) createNetwork(q Request) (any, error) {
	c.state.Lock()
	defer c.state.Unlock()
	if _, _, err := c.find(q); err == nil {
		return nil, fmt.Errorf("network %s already exists", q.Text("NetworkID"))
	}
	number := len(c.networks)
	c.networks = append(c.networks, &cable{id: q.Text("NetworkID"), ends: make(map[string]int)})
	return struct{}{}, c.sh("ip link add p2p%[1]d-0 type veth peer name p2p%[1]d-1", number)
}

func (c *Cable) deleteNetwork(q Request) (any, error) {
	c.state.Lock()
	defer c.state.Unlock()
	number, n, err := c.find(q)
	if err != nil {
		return nil, err
	}
	if len(n.ends) > 0 {
		return nil, fmt.Errorf("network %s still has %d endpoints", n.id, len(n.ends))
	}
	c.networks[number] = nil
	return struct{}{}, c.sh("ip link del p2p%d-0", number)
}

func (c *Cable) createEndpoint(q Request) (any, error) {
	c.state.Lock()
	defer c.state.Unlock()
	_, n, err := c.find(q)
	if err != nil {
		return nil, err
	}
	if len(n.ends) > 1 {
		return nil, fmt.Errorf("2 endpoints already attached to network %s", n.id)
	}
	end := 0
	for _, other := range n.ends {
		end = 1 - other
	}
	n.ends[q.Text("EndpointID")] = end
	return map[string]any{"Interface": nil}, nil
}

func (c *Cable) end(q Request) (number, end int, err error) {
	number, n, err := c.find(q)
	if err != nil {
		return 0, 0, err
	}
	end, known := n.ends[q.Text("EndpointID")]
	if !known {
		return 0, 0, fmt.Errorf("endpoint %s does not exist", q.Text("EndpointID"))
	}
	return number, end, nil
}

func (c *Cable) deleteEndpoint(q Request) (any, error) {
	c.state.Lock()
	defer c.state.Unlock()
	number, _, err := c.end(q)
	if err != nil {
		return nil, err
	}
	delete(c.networks[number].ends, q.Text("EndpointID"))
	return struct{}{}, nil
}

func (c *Cable) describe(q Request) (any, error) {
	c.state.Lock()
	defer c.state.Unlock()
	_, end, err := c.end(q)
	return map[string]any{"Value": map[string]string{"data": fmt.Sprintf(`{"ordinal":%d}`, end)}}, err
}

func (c *Cable) join(q Request) (any, error) {
	c.state.Lock()
	defer c.state.Unlock()
	number, end, err := c.end(q)
	return map[string]any{
		"InterfaceName": map[string]string{"SrcName": fmt.Sprintf("p2p%d-%d", number, end), "DstPrefix": "eth"},
		"Gateway":       "", "GatewayIPv6": "", "StaticRoutes": nil, "DisableGatewayService": true,
	}, err
}
