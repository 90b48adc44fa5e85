package wire

// Values and names of options in IPAM requests.
const (
	// OptionGateway is the value of OptionAddressType for a gateway, and the key
	// of a pool's data that holds one.
	OptionGateway     = "com.docker.network.gateway"
	OptionAddressType = "RequestAddressType"
	OptionEndpoint    = "com.docker.network.endpoint.name"
)

// IpamCapabilities is the answer to IpamDriver.GetCapabilities.
type IpamCapabilities struct {
	RequiresMACAddress    bool // each RequestAddress names the MAC
	RequiresRequestReplay bool // all requests are repeated when the engine starts
}

// AddressSpaces is the answer to IpamDriver.GetDefaultAddressSpaces. The names
// are opaque.
type AddressSpaces struct{ LocalDefaultAddressSpace, GlobalDefaultAddressSpace string }

// RequestPoolRequest asks for a pool. An empty Pool asks for any.
type RequestPoolRequest struct {
	AddressSpace, Pool, SubPool string
	Options                     map[string]string
	V6                          bool
}

// RequestPoolResponse is the pool that was had.
type RequestPoolResponse struct {
	PoolID string
	Pool   string            // a prefix
	Data   map[string]string // OptionGateway: the gateway, as a prefix
}

// ReleasePoolRequest gives a pool back.
type ReleasePoolRequest struct{ PoolID string }

// RequestAddressRequest asks for an address. An empty Address asks for any.
type RequestAddressRequest struct {
	PoolID, Address string
	Options         map[string]string
}

// RequestAddressResponse is the address that was had, as a prefix.
type RequestAddressResponse struct {
	Address string
	Data    map[string]string
}

// ReleaseAddressRequest gives an address back.
type ReleaseAddressRequest struct{ PoolID, Address string }
