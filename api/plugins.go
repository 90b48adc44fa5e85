package api

import (
	"context"
	"net/http"
	"slices"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/network"
)

// Plugins knows the drivers that are programs of their own.
type Plugins interface {
	// Names returns those that offer a kind of driver: "NetworkDriver" or
	// "IpamDriver". It asks those that were never asked, and briefly.
	Names(ctx context.Context, kind string) []string

	// Plugins describes those that are there or were used, by name. It asks them
	// how they are, and briefly.
	Plugins(ctx context.Context) []Plugin

	// GiveUp drops what waits for a plugin that will not come back, and returns
	// what that was.
	GiveUp(ctx context.Context, name string) ([]string, error)
}

// Plugin is one plugin, in answer to GET /linkspan/v1/plugins.
type Plugin struct {
	Name       string
	Address    string   // URL of its socket
	File       string   // that says where it is
	State      string   // "ready" or "away"
	Problem    string   `json:",omitempty"` // why it is not ready, or what it says is amiss
	Implements []string `json:",omitempty"`

	Scope             string   `json:",omitempty"` // of a network driver
	ConnectivityScope string   `json:",omitempty"`
	Extensions        []string `json:",omitempty"`
	RequiresMAC       bool     `json:",omitempty"` // of an IPAM driver
	RequiresReplay    bool     `json:",omitempty"`

	Networks  []string         `json:",omitempty"` // that depend on it
	Endpoints []PluginEndpoint `json:",omitempty"` // of its networks
	Waiting   []string         `json:",omitempty"` // what could not be undone without it, and will be
}

// PluginEndpoint is an endpoint on a plugin's network.
type PluginEndpoint struct {
	Network, Container string
	Info               map[string]any `json:",omitempty"` // what the plugin says of it
	Problems           []string       `json:",omitempty"` // what it says is amiss with it
}

func (s *Server) plugins(ctx context.Context) []Plugin {
	if s.own == nil {
		return []Plugin{}
	}
	return s.own.Plugins(ctx)
}

func (s *Server) listOwnPlugins(w http.ResponseWriter, r *http.Request) error {
	writeJSON(w, http.StatusOK, s.plugins(r.Context()))
	return nil
}

func (s *Server) inspectOwnPlugin(w http.ResponseWriter, r *http.Request) error {
	name := variable(r, "name")
	all := s.plugins(r.Context())
	i := slices.IndexFunc(all, func(p Plugin) bool { return p.Name == name })
	if i < 0 {
		return linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", name)
	}
	writeJSON(w, http.StatusOK, all[i])
	return nil
}

// GivenUp is what a plugin will never be told, in answer to
// DELETE /linkspan/v1/plugins/{name}.
type GivenUp struct{ Dropped []string }

func (s *Server) forgetOwnPlugin(w http.ResponseWriter, r *http.Request) error {
	name := variable(r, "name")
	if s.own == nil {
		return linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", name)
	}
	dropped, err := s.own.GiveUp(acting(r), name)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, GivenUp{dropped})
	return nil
}

// networkDrivers are those that docker info lists: the built-in ones, then the
// plugins.
func (s *Server) networkDrivers(r *http.Request) []string {
	names := slices.Clone(s.about.NetworkDrivers)
	if s.own != nil {
		names = append(names, s.own.Names(r.Context(), "NetworkDriver")...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// inspected is a network with what Docker has no word for.
type inspected struct {
	apinetwork.Inspect
	Linkspan *networkState `json:",omitempty"`
}

// networkState says that a network works in part only, and whether its ports are
// guarded.
type networkState struct {
	State  string `json:",omitempty"` // "degraded"
	Reason string `json:",omitempty"`
	// PortSecurity is left out for networks that have no ports on this host.
	PortSecurity *controller.PortSecurity `json:",omitempty"`
}

type judge interface {
	Degraded(network.Network) error
	PortSecurity(network.Network) (s controller.PortSecurity, guardable bool)
}

// stateOf returns nil for a network of which there is nothing to say.
func (s *Server) stateOf(n network.Network) *networkState {
	var state networkState
	if err := s.networks.Degraded(n); err != nil {
		state.State, state.Reason = "degraded", err.Error()
	}
	if security, guardable := s.networks.PortSecurity(n); guardable {
		state.PortSecurity = &security
	}
	if state == (networkState{}) {
		return nil
	}
	return &state
}
