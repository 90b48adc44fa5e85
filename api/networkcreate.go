package api

import (
	"cmp"
	"maps"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/ipam"
)

// Options by which the address families can be chosen, too.
const (
	optionIPv4 = "com.docker.network.enable_ipv4"
	optionIPv6 = "com.docker.network.enable_ipv6"
)

func (s *Server) createNetwork(w http.ResponseWriter, r *http.Request) error {
	var request apinetwork.CreateRequest
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	spec, err := s.networkSpec(request, versionOf(r))
	if err != nil {
		return err
	}
	n, err := s.networks.CreateNetwork(r.Context(), spec)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, apinetwork.CreateResponse{ID: string(n.ID)})
	return nil
}

// networkSpec reads what a client wants of a new network, and fills in what the
// daemon's flags say of networks of its kind.
func (s *Server) networkSpec(q apinetwork.CreateRequest, v version) (controller.NetworkSpec, error) {
	if !q.ConfigOnly && q.ConfigFrom == nil {
		options := maps.Clone(s.networks.DefaultOptions(cmp.Or(q.Driver, "bridge")))
		if options == nil {
			options = make(map[string]string, len(q.Options))
		}
		maps.Copy(options, q.Options)
		q.Options = options
	}
	return networkSpec(q, v)
}

// networkSpec reads what a client wants of a new network. It is pure.
func networkSpec(q apinetwork.CreateRequest, v version) (controller.NetworkSpec, error) {
	spec := controller.NetworkSpec{
		Name: q.Name, Driver: q.Driver, Scope: q.Scope, Options: q.Options, Labels: q.Labels, IPv4: true,
		Internal: q.Internal, Attachable: q.Attachable, ConfigOnly: q.ConfigOnly,
	}
	if q.ConfigFrom != nil {
		spec.ConfigFrom = q.ConfigFrom.Network
	}
	if strings.TrimSpace(q.Name) == "" {
		return spec, linkspan.Errorf(linkspan.ErrInvalid, "invalid name: name is empty")
	}
	if err := refuseNetwork(q); err != nil {
		return spec, err
	}
	var err error
	if spec.IPv4, err = family(q.EnableIPv4, q.Options, optionIPv4, true, v >= 48); err != nil {
		return spec, err
	}
	if spec.IPv6, err = family(q.EnableIPv6, q.Options, optionIPv6, false, true); err != nil {
		return spec, err
	}
	spec.Options = withoutFamilies(q, v)
	if q.IPAM != nil {
		spec.IPAMDriver, spec.IPAMOptions = q.IPAM.Driver, q.IPAM.Options
		spec.Pools = pools(q.IPAM.Config, spec.IPv6)
	}
	return spec, ipam.Validate(spec.Pools...)
}

// refuseNetwork refuses what would otherwise be quietly left out.
func refuseNetwork(q apinetwork.CreateRequest) error {
	switch {
	case q.Ingress && q.ConfigOnly:
		return linkspan.Errorf(linkspan.ErrForbidden, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	case q.Ingress:
		return linkspan.Errorf(linkspan.ErrForbidden, "Ingress network can only be global scope network")
	case q.Scope == "swarm":
		return linkspan.Errorf(linkspan.ErrForbidden, "cannot create a swarm scoped network when swarm is not active")
	case q.Scope != "" && q.Scope != "local" && q.Scope != "global":
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid scope %q: want local or global", q.Scope)
	}
	return nil
}

// family tells whether an address family is on: by the field of the request if
// the client's version has it, by the option, or by default.
func family(field *bool, options map[string]string, option string, absent, known bool) (bool, error) {
	on := absent
	if text, given := options[option]; given {
		value, err := strconv.ParseBool(text)
		if err != nil {
			return false, linkspan.Errorf(linkspan.ErrInvalid, "driver-opt %q is not a valid bool", option)
		}
		on = value
	}
	if known && field != nil {
		on = *field
	}
	return on, nil
}

// withoutFamilies returns the options without those that a field of the request
// overrides.
func withoutFamilies(q apinetwork.CreateRequest, v version) map[string]string {
	options := maps.Clone(q.Options)
	if q.EnableIPv4 != nil && v >= 48 {
		delete(options, optionIPv4)
	}
	if q.EnableIPv6 != nil {
		delete(options, optionIPv6)
	}
	return options
}

// pools translates the address pools. An entry that says nothing asks for
// nothing, and those of IPv6 count only if it is on.
func pools(configs []apinetwork.IPAMConfig, ipv6 bool) []ipam.Pool {
	var all []ipam.Pool
	for _, config := range configs {
		pool := ipam.Pool{Subnet: unmapPrefix(config.Subnet), Range: unmapPrefix(config.IPRange), Gateway: config.Gateway.Unmap()}
		for name, addr := range config.AuxAddress {
			if pool.Aux == nil {
				pool.Aux = make(map[string]netip.Addr, len(config.AuxAddress))
			}
			pool.Aux[name] = addr.Unmap()
		}
		nothing := !pool.Subnet.IsValid() && !pool.Range.IsValid() && !pool.Gateway.IsValid() && pool.Aux == nil
		if nothing || (pool.Subnet.Addr().Is6() && !ipv6) {
			continue
		}
		all = append(all, pool)
	}
	return all
}

// unmapPrefix turns ::ffff:10.0.0.0/104 into 10.0.0.0/8.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

func (s *Server) connect(w http.ResponseWriter, r *http.Request) error {
	id, settings, err := s.connection(w, r)
	if err != nil {
		return err
	}
	return s.networks.Connect(r.Context(), variable(r, "id"), id, settings)
}

// connection reads who is to be connected, and how.
func (s *Server) connection(w http.ResponseWriter, r *http.Request) (linkspan.ID, *apinetwork.EndpointSettings, error) {
	var request apinetwork.ConnectRequest
	if err := readJSON(w, r, &request); err != nil {
		return "", nil, err
	}
	if request.EndpointConfig != nil && versionOf(r) < 54 {
		request.EndpointConfig.MacAddress = nil // such clients repeat what inspect told them
	}
	id, err := s.connectable(request.Container)
	return id, request.EndpointConfig, err
}

func (s *Server) disconnect(w http.ResponseWriter, r *http.Request) error {
	var request apinetwork.DisconnectRequest
	if err := readJSON(w, r, &request); err != nil {
		return err
	}
	id, err := s.connectable(request.Container)
	if err != nil {
		return err
	}
	return s.networks.Disconnect(acting(r), variable(r, "id"), id, request.Force)
}

// connectable finds a container that is not on its way out.
func (s *Server) connectable(ref string) (linkspan.ID, error) {
	c, err := s.containers.Get(ref)
	if err != nil {
		return "", err
	}
	if leaving(c.State.Status) {
		return "", errLeaving(c.ID)
	}
	return c.ID, nil
}
