package controller_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin/plugintest"
	"github.com/linkspan/linkspan/plugin/sdk"
	messages "github.com/linkspan/linkspan/plugin/wire"
)

// A driver that was built with our SDK: it chooses whether there is a gateway, is
// told what old plugins are not, and after a restart is told all again that it
// does not know.
func TestPluginExtensions(t *testing.T) {
	m := nstest.New(t)
	var mu sync.Mutex
	var announced []string
	var network messages.CreateNetworkRequest
	var endpoint messages.CreateEndpointRequest
	var unwell atomic.Bool
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		announced = append(announced, what)
	}
	driver := sdk.Network{
		GwAllocCheck: func(context.Context, messages.GwAllocCheckRequest) (messages.GwAllocCheckResponse, error) {
			return messages.GwAllocCheckResponse{SkipIPv4: true}, nil
		},
		CreateNetwork: func(_ context.Context, q messages.CreateNetworkRequest) error {
			network = q
			note("network")
			return nil
		},
		CreateEndpoint: func(_ context.Context, q messages.CreateEndpointRequest) (messages.CreateEndpointResponse, error) {
			endpoint = q
			note("endpoint")
			return messages.CreateEndpointResponse{}, nil
		},
		Join: func(context.Context, messages.JoinRequest) (messages.JoinResponse, error) {
			note("join")
			return messages.JoinResponse{DisableGatewayService: true}, nil
		},
		Status: func(context.Context) (messages.StatusResponse, error) {
			return messages.StatusResponse{Healthy: !unwell.Load(), Message: "tired"}, nil
		},
		Reconcile: func(_ context.Context, q messages.ReconcileRequest) (messages.ReconcileResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			if slices.Contains(announced, "network") {
				return messages.ReconcileResponse{}, nil
			}
			return messages.ReconcileResponse{UnknownNetworks: q.Networks, UnknownEndpoints: q.Endpoints}, nil
		},
	}
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	serve := func() *plugintest.Server {
		return plugintest.Serve(t, p.socket("lab-driver"), plugintest.HTTP{Handler: sdk.Plugin{Network: &driver}.Handler()})
	}
	server := serve()
	p.network(t, "lab", subnet("10.77.0.0/24"), driverIs("lab-driver"))
	if network.IPv4Data[0].Gateway != "" || network.Options[messages.OptionNetworkName] != "lab" {
		t.Errorf("the network was announced with %+v", network)
	}
	web := spec("web", "lab")
	web.Config.Labels = map[string]string{"tier": "front"}
	p.run(t, web)
	labels, _ := endpoint.Options[messages.OptionLabels].(map[string]any)
	if labels["tier"] != "front" || endpoint.Options[messages.OptionContainerID] != string(web.ID) {
		t.Errorf("the endpoint was announced with %+v", endpoint.Options)
	}
	if err := p.plugins.Status(t.Context(), "lab-driver"); err != nil {
		t.Error(err)
	}
	n, err := p.Network("lab")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { p.plugins.FollowStatus(ctx, 10*time.Millisecond) })
	for _, well := range []bool{false, true} {
		unwell.Store(!well)
		if !nstest.Until(soon, func() bool { return (p.Degraded(n) == nil) == well }) {
			t.Errorf("the plugin says that well is %v, the network: %v", well, p.Degraded(n))
		}
	}
	unwell.Store(true)
	other := spec("other", "lab")
	p.run(t, other) // it is the plugin's to refuse
	must(t, p.Detach(t.Context(), other.ID))
	cancel()
	following.Wait()

	server.Stop()
	mu.Lock()
	announced = nil
	mu.Unlock()
	serve()
	p.Heal("lab-driver") // as when anybody needs it
	if !nstest.Until(soon, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(announced, []string{"network", "endpoint", "join"})
	}) {
		t.Errorf("after its restart the plugin was told of %v", announced)
	}
	p.clear(t)
}
