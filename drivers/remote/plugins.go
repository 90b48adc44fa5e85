package remote

import (
	"context"
	"slices"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/plugin/wire"
)

var _ drivers.Plugins = (*Plugins)(nil)

// Driver returns the network driver of a plugin, whether there is one or not.
func (p *Plugins) Driver(name string) drivers.Driver { return Driver{Name: name, Plugins: p} }

// Addresses returns the IPAM driver of a plugin, whether there is one or not.
func (p *Plugins) Addresses(name string) drivers.Addresses {
	return Addresses{Name: name, Plugins: p}
}

var _ drivers.Reconciler = (*Plugins)(nil)

// Reconcile tells a plugin that offers it what is held of it, and returns what of
// that it does not know.
func (p *Plugins) Reconcile(ctx context.Context, name string, held drivers.Held) (drivers.Held, error) {
	var unknown drivers.Held
	if !p.offers(name, wire.ExtensionReconcile) {
		return unknown, nil
	}
	request := wire.ReconcileRequest{Networks: []string{}, Endpoints: []wire.EndpointRequest{}}
	for _, id := range held.Networks {
		request.Networks = append(request.Networks, string(id))
	}
	for _, e := range held.Endpoints {
		request.Endpoints = append(request.Endpoints, wire.EndpointRequest{NetworkID: string(e.Network), EndpointID: string(e.Endpoint)})
	}
	var answer wire.ReconcileResponse
	if err := p.Line(name).Call(ctx, "NetworkDriver.Reconcile", request, &answer); err != nil {
		return unknown, err
	}
	for _, id := range answer.UnknownNetworks {
		unknown.Networks = append(unknown.Networks, linkspan.ID(id))
	}
	for _, e := range answer.UnknownEndpoints {
		unknown.Endpoints = append(unknown.Endpoints, drivers.HeldEndpoint{Network: linkspan.ID(e.NetworkID), Endpoint: linkspan.ID(e.EndpointID)})
	}
	return unknown, nil
}

func (p *Plugins) offers(name, extension string) bool {
	about, known := p.Line(name).Known()
	return known && slices.Contains(about.Network.Extensions, extension)
}

// FollowStatus asks all plugins that offer it how they are, again and again until
// ctx ends.
func (p *Plugins) FollowStatus(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		for _, name := range p.Used() {
			if err := p.Status(ctx, name); err != nil && ctx.Err() == nil {
				if _, known := p.complaints.Swap(name, err); !known {
					p.Logf("%v", err)
				}
			} else {
				p.complaints.Delete(name)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Complaint returns what a plugin said was wrong with it when it was asked last.
func (p *Plugins) Complaint(name string) error {
	err, _ := p.complaints.Load(name)
	complaint, _ := err.(error)
	return complaint
}

// Abandon stops looking for a plugin, until somebody wants it again.
func (p *Plugins) Abandon(name string) {
	p.complaints.Delete(name)
	p.Directory.Abandon(name)
}

// Status asks a plugin that offers it how it is. It returns nil for one that is
// well, or does not say.
func (p *Plugins) Status(ctx context.Context, name string) error {
	if !p.offers(name, wire.ExtensionStatus) {
		return nil
	}
	var answer wire.StatusResponse
	if err := p.Line(name).Brief(ctx, "NetworkDriver.Status", struct{}{}, &answer); err != nil {
		return err
	}
	if !answer.Healthy {
		return linkspan.Errorf(linkspan.ErrUnavailable, "plugin %q says that it is not well: %s", name, answer.Message)
	}
	return nil
}

// Problems asks a plugin that offers it what is amiss with an endpoint.
func (p *Plugins) Problems(ctx context.Context, name string, e drivers.HeldEndpoint) ([]string, error) {
	if !p.offers(name, wire.ExtensionCheck) {
		return nil, nil
	}
	var answer wire.CheckResponse
	err := p.Line(name).Brief(ctx, "NetworkDriver.Check", wire.EndpointRequest{NetworkID: string(e.Network), EndpointID: string(e.Endpoint)}, &answer)
	return answer.Problems, err
}
