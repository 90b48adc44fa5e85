package api

import (
	"net/http"
	"net/netip"
	"time"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
)

func (s *Server) listNetworks(w http.ResponseWriter, r *http.Request) error {
	f, err := filtersOf(r, "driver", "scope", "name", "id", "label", "type", "dangling")
	if err != nil {
		return err
	}
	for _, kind := range f["type"] {
		if kind != "builtin" && kind != "custom" {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid filter: 'type'='%s'", kind)
		}
	}
	dangling, given, err := f.oneBool("dangling")
	if err != nil {
		return err
	}
	legacy := versionOf(r) < 28
	list := []any{}
	for _, n := range s.networks.Networks() {
		if !f.network(n) || (given && s.dangling(n) != dangling) {
			continue
		}
		if legacy { // such clients look for the containers in the list
			list = append(list, apinetwork.Inspect{Network: wireNetwork(n), Containers: s.attached(n.ID)})
		} else {
			list = append(list, apinetwork.Summary{Network: wireNetwork(n)})
		}
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

func (f filters) network(n network.Network) bool {
	kind := "custom"
	if network.Predefined(n.Name) {
		kind = "builtin"
	}
	return f.exact("driver", n.Driver) && f.exact("scope", n.Scope) && f.exact("type", kind) &&
		f.like("name", n.Name) && f.like("id", string(n.ID)) && f.labels(n.Labels)
}

// dangling networks are used by nobody and not predefined.
func (s *Server) dangling(n network.Network) bool {
	return !network.Predefined(n.Name) && len(s.networks.Endpoints(n.ID)) == 0
}

func (s *Server) inspectNetwork(w http.ResponseWriter, r *http.Request) error {
	if _, err := strictBool(r, "verbose"); err != nil {
		return err
	}
	ref := variable(r, "id")
	n, err := s.networks.Network(ref)
	if err != nil {
		return err
	}
	if scope := r.URL.Query().Get("scope"); scope != "" && scope != n.Scope {
		return linkspan.Errorf(linkspan.ErrNotFound, "network %s not found in scope %s: its scope is %s", ref, scope, n.Scope)
	}
	inspect := apinetwork.Inspect{Network: wireNetwork(n), Containers: s.attached(n.ID)}
	for _, peer := range s.networks.Peers(n) {
		inspect.Peers = append(inspect.Peers, apinetwork.PeerInfo{Name: peer.Name, IP: peer.VTEP})
	}
	if versionOf(r) >= 52 {
		inspect.Status = s.status(n.ID)
	}
	writeJSON(w, http.StatusOK, inspected{inspect, s.stateOf(n)})
	return nil
}

// wireNetwork is a network as clients see it.
func wireNetwork(n network.Network) apinetwork.Network {
	wire := apinetwork.Network{
		Name: n.Name, ID: string(n.ID), Created: n.Created, Scope: n.Scope, Driver: n.Driver,
		EnableIPv4: n.IPv4, EnableIPv6: n.IPv6, Internal: n.Internal, Attachable: n.Attachable,
		ConfigOnly: n.ConfigOnly, ConfigFrom: apinetwork.ConfigReference{Network: n.ConfigFrom},
		IPAM:    apinetwork.IPAM{Driver: n.IPAMDriver, Options: n.IPAMOptions, Config: []apinetwork.IPAMConfig{}},
		Options: orEmpty(n.Options), Labels: orEmpty(n.Labels),
	}
	if network.Predefined(n.Name) && len(n.Pools) == 0 { // as Docker shows its own
		wire.IPAM.Config = nil
	}
	for _, ipv6 := range []bool{false, true} {
		for _, pool := range n.Pools {
			if pool.Subnet.Addr().Is6() == ipv6 {
				wire.IPAM.Config = append(wire.IPAM.Config, apinetwork.IPAMConfig{
					Subnet: pool.Subnet, IPRange: pool.Range, Gateway: pool.Gateway, AuxAddress: pool.Aux,
				})
			}
		}
	}
	return wire
}

// orEmpty makes nothing {} in JSON, where clients expect an object.
func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// attached lists the live endpoints of a network by container.
func (s *Server) attached(id linkspan.ID) map[string]apinetwork.EndpointResource {
	all := make(map[string]apinetwork.EndpointResource)
	for _, e := range s.networks.Endpoints(id) {
		var mac apinetwork.HardwareAddr
		if err := mac.UnmarshalText([]byte(e.MAC)); err != nil {
			s.logf("endpoint %s has a MAC that is none: %v", e.ID, err)
		}
		key := string(e.Owner)
		if _, twice := all[key]; twice || !s.runs(e.Owner) { // plugins wait for this to change before they look for the process
			key = "ep-" + string(e.ID)
		}
		all[key] = apinetwork.EndpointResource{Name: e.Name, EndpointID: string(e.ID), MacAddress: mac, IPv4Address: e.IPv4, IPv6Address: e.IPv6}
	}
	return all
}

// runs tells whether a container has a process.
func (s *Server) runs(id linkspan.ID) bool {
	c, err := s.containers.Get(string(id))
	return err == nil && c.State.Pid > 0
}

func (s *Server) status(id linkspan.ID) *apinetwork.Status {
	subnets := make(map[netip.Prefix]apinetwork.SubnetStatus)
	for _, pool := range s.networks.Status(id) {
		subnets[pool.Pool.Subnet] = apinetwork.SubnetStatus{IPsInUse: pool.InUse, DynamicIPsAvailable: pool.Available}
	}
	return &apinetwork.Status{IPAM: apinetwork.IPAMStatus{Subnets: subnets}}
}

func (s *Server) removeNetwork(w http.ResponseWriter, r *http.Request) error {
	if err := s.networks.RemoveNetwork(acting(r), variable(r, "id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) pruneNetworks(w http.ResponseWriter, r *http.Request) error {
	f, until, err := pruneFilters(r, s.now())
	if err != nil {
		return err
	}
	if !s.pruningNetworks.CompareAndSwap(false, true) {
		return linkspan.Errorf(linkspan.ErrConflict, "a prune operation is already running")
	}
	defer s.pruningNetworks.Store(false)
	removed, err := s.networks.Prune(r.Context(), prunableNetwork(f, until))
	if err != nil {
		s.logf("pruning networks: %v", err)
	}
	writeJSON(w, http.StatusOK, apinetwork.PruneReport{NetworksDeleted: removed})
	return nil
}

func prunableNetwork(f filters, until time.Time) func(network.Network) bool {
	return func(n network.Network) bool { return f.prunable(n.Labels, n.Created, until) }
}
