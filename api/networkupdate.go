package api

import (
	"context"
	"net/http"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

// NetworkUpdate is the body of PATCH /linkspan/v1/networks/{id}: what is to be
// different about a network. What is missing stays.
type NetworkUpdate struct {
	// Options and Labels are set one by one; null takes one away.
	Options map[string]*string `json:",omitempty"`
	Labels  map[string]*string `json:",omitempty"`

	EnableIPv4 *bool `json:",omitempty"`
	EnableIPv6 *bool `json:",omitempty"`
	Internal   *bool `json:",omitempty"`
	Attachable *bool `json:",omitempty"`

	// Pools are subnets to add, in the notation of IPAM.Config.
	Pools []apinetwork.IPAMConfig `json:",omitempty"`
}

type networkUpdater interface {
	UpdateNetwork(ctx context.Context, ref string, change controller.NetworkChange) (network.Network, error)
	ExplainUpdate(ref string, change controller.NetworkChange) (op.Plan, error)
}

// updateNetwork changes a network in place and answers with what it is then.
func (s *Server) updateNetwork(w http.ResponseWriter, r *http.Request) error {
	change, err := networkChange(w, r)
	if err != nil {
		return err
	}
	n, err := s.networks.UpdateNetwork(acting(r), variable(r, "id"), change)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, apinetwork.Inspect{Network: wireNetwork(n), Containers: s.attached(n.ID), Status: s.status(n.ID)})
	return nil
}

func (s *Server) explainUpdateNetwork(ctx context.Context, r *http.Request) (string, error) {
	change, err := networkChange(nil, r)
	if err != nil {
		return "", err
	}
	plan, err := s.networks.ExplainUpdate(variable(r, "id"), change)
	if err != nil || len(plan) > 0 {
		return plan.In(dialectOf(ctx)), err
	}
	return comment("The kernel would not notice: the change is one of the record alone."), nil
}

func networkChange(w http.ResponseWriter, r *http.Request) (controller.NetworkChange, error) {
	var q NetworkUpdate
	if err := readJSON(w, r, &q); err != nil {
		return controller.NetworkChange{}, err
	}
	change := controller.NetworkChange{
		Options: q.Options, Labels: q.Labels, IPv4: q.EnableIPv4, IPv6: q.EnableIPv6,
		Internal: q.Internal, Attachable: q.Attachable, Pools: pools(q.Pools, true),
	}
	return change, ipam.Validate(change.Pools...)
}
