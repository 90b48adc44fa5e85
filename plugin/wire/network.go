package wire

// What a plugin may offer (the answer to Plugin.Activate).
const (
	NetworkDriver = "NetworkDriver"
	IpamDriver    = "IpamDriver"
)

// Names of options that the engine puts into requests.
const (
	OptionGeneric      = "com.docker.network.generic"     // CreateNetwork: the user's -o options
	OptionIPv4         = "com.docker.network.enable_ipv4" // CreateNetwork: bool
	OptionIPv6         = "com.docker.network.enable_ipv6" // CreateNetwork: bool
	OptionInternal     = "com.docker.network.internal"    // CreateNetwork: true, or absent
	OptionExposedPorts = "com.docker.network.endpoint.exposedports"
	OptionPortMap      = "com.docker.network.portmap"
	OptionMAC          = "com.docker.network.endpoint.macaddress" // base64 of the octets in CreateEndpoint, text in RequestAddress
	OptionDNSServers   = "com.docker.network.endpoint.dnsservers" // CreateEndpoint: the container's own, if any

	// Extensions: what a plugin would otherwise have to ask our API for.
	OptionNetworkName   = "linkspan.network.name"
	OptionNetworkLabels = "linkspan.network.labels"
	OptionContainerID   = "linkspan.container.id"
	OptionContainerName = "linkspan.container.name"
	OptionLabels        = "linkspan.container.labels"
	OptionInterface     = "linkspan.endpoint.ifname"
)

// Activation is the answer to Plugin.Activate.
type Activation struct{ Implements []string }

// Capabilities is the answer to NetworkDriver.GetCapabilities.
type Capabilities struct {
	Scope             string // "local" or "global"
	ConnectivityScope string `json:",omitempty"` // the same; empty: as Scope
	GwAllocChecker    bool   `json:",omitempty"` // it wants GwAllocCheck

	// Extensions names the optional calls that the plugin has beyond Docker's:
	// "Status", "Check", "Reconcile". An extension.
	Extensions []string `json:"LinkspanExtensions,omitempty"`
}

// Pool is an address pool of a network as a driver sees it.
type Pool struct {
	AddressSpace string
	Pool         string            `json:",omitempty"` // 10.77.0.0/24
	Gateway      string            `json:",omitempty"` // 10.77.0.1/24
	AuxAddresses map[string]string `json:",omitempty"` // by name, 10.77.0.5/24
}

// GwAllocCheckRequest asks whether the engine may leave a gateway out.
type GwAllocCheckRequest struct{ Options map[string]any }

// GwAllocCheckResponse is the answer to it.
type GwAllocCheckResponse struct{ SkipIPv4, SkipIPv6 bool }

// AllocateNetworkRequest asks a driver of global scope for what the network
// needs on every node.
type AllocateNetworkRequest struct {
	NetworkID          string
	Options            map[string]string
	IPv4Data, IPv6Data []Pool
}

// AllocateNetworkResponse holds options to hand to CreateNetwork.
type AllocateNetworkResponse struct{ Options map[string]string }

// CreateNetworkRequest announces a network.
type CreateNetworkRequest struct {
	NetworkID          string
	Options            map[string]any
	IPv4Data, IPv6Data []Pool
}

// NetworkRequest names a network: DeleteNetwork, FreeNetwork.
type NetworkRequest struct{ NetworkID string }

// EndpointRequest names an endpoint: DeleteEndpoint, EndpointOperInfo, Leave,
// RevokeExternalConnectivity.
type EndpointRequest struct{ NetworkID, EndpointID string }

// Interface holds the addresses of an endpoint. An empty string is unset.
type Interface struct {
	Address     string // 10.77.0.2/24
	AddressIPv6 string
	MacAddress  string
}

// CreateEndpointRequest announces an endpoint. A nil Interface leaves the
// addresses to the driver.
type CreateEndpointRequest struct {
	NetworkID, EndpointID string
	Interface             *Interface
	Options               map[string]any
}

// CreateEndpointResponse may hold what the request left open, and nothing else.
type CreateEndpointResponse struct{ Interface *Interface }

// JoinRequest asks for the link of an endpoint, for a sandbox.
type JoinRequest struct {
	NetworkID, EndpointID string
	SandboxKey            string // path of the network namespace
	Options               map[string]any
}

// InterfaceName says which link to move, and what to call it there.
type InterfaceName struct {
	SrcName   string // in the host's namespace
	DstName   string `json:",omitempty"`
	DstPrefix string // the engine adds the lowest free number
}

// The kinds of a StaticRoute.
const (
	RouteNextHop   = 0
	RouteConnected = 1
)

// StaticRoute is a route that a sandbox needs.
type StaticRoute struct {
	Destination string // a prefix
	RouteType   int
	NextHop     string // of RouteNextHop
}

// JoinResponse is the wiring of a sandbox.
type JoinResponse struct {
	InterfaceName         *InterfaceName `json:",omitempty"`
	Gateway               string         `json:",omitempty"`
	GatewayIPv6           string         `json:",omitempty"`
	StaticRoutes          []StaticRoute  `json:",omitempty"`
	DisableGatewayService bool           `json:",omitempty"`
}

// ConnectivityRequest says that the sandbox's way out is by this endpoint.
type ConnectivityRequest struct {
	NetworkID, EndpointID string
	Options               map[string]any
}

// OperInfoResponse is the answer to EndpointOperInfo.
type OperInfoResponse struct{ Value map[string]any }

// NodeDiscovery is the only kind of a Discovery.
const NodeDiscovery = 1

// Node is a member of the cluster.
type Node struct {
	Address, BindAddress string
	Self                 bool
}

// Discovery tells a driver of a node that came (DiscoverNew) or went.
type Discovery struct {
	DiscoveryType int
	DiscoveryData Node
}

// PortBinding is an entry of OptionPortMap.
type PortBinding struct {
	Proto       int // IP protocol number: 6 is tcp, 17 udp, 132 sctp
	IP          string
	Port        uint16
	HostIP      string
	HostPort    uint16
	HostPortEnd uint16
}

// TransportPort is an entry of OptionExposedPorts.
type TransportPort struct {
	Proto int
	Port  uint16
}
