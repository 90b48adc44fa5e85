package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/linkspan/linkspan/plugin/wire"
)

// Plugin is a program's offer: a network driver, an IPAM driver, or both.
type Plugin struct {
	Network *Network
	IPAM    *IPAM
}

// Network is a network driver. A nil function is a call that it does not care
// for: those to make and undo succeed, the optional ones are unknown.
type Network struct {
	Scope             string // "local" (if empty) or "global"
	ConnectivityScope string // empty: as Scope

	CreateNetwork  func(context.Context, wire.CreateNetworkRequest) error
	DeleteNetwork  func(context.Context, wire.NetworkRequest) error
	CreateEndpoint func(context.Context, wire.CreateEndpointRequest) (wire.CreateEndpointResponse, error)
	DeleteEndpoint func(context.Context, wire.EndpointRequest) error
	Join           func(context.Context, wire.JoinRequest) (wire.JoinResponse, error)
	Leave          func(context.Context, wire.EndpointRequest) error

	// Optional.
	GwAllocCheck    func(context.Context, wire.GwAllocCheckRequest) (wire.GwAllocCheckResponse, error)
	AllocateNetwork func(context.Context, wire.AllocateNetworkRequest) (wire.AllocateNetworkResponse, error)
	FreeNetwork     func(context.Context, wire.NetworkRequest) error
	OperInfo        func(context.Context, wire.EndpointRequest) (wire.OperInfoResponse, error)
	Program         func(context.Context, wire.ConnectivityRequest) error
	Revoke          func(context.Context, wire.EndpointRequest) error
	DiscoverNew     func(context.Context, wire.Discovery) error
	DiscoverDelete  func(context.Context, wire.Discovery) error

	// Extensions, which Linkspan asks for if they are there.
	Status    func(context.Context) (wire.StatusResponse, error)
	Check     func(context.Context, wire.EndpointRequest) (wire.CheckResponse, error)
	Reconcile func(context.Context, wire.ReconcileRequest) (wire.ReconcileResponse, error)
}

// IPAM is an address allocator. All functions must be set.
type IPAM struct {
	Capabilities wire.IpamCapabilities
	Spaces       wire.AddressSpaces // names that RequestPool will be given

	RequestPool    func(context.Context, wire.RequestPoolRequest) (wire.RequestPoolResponse, error)
	ReleasePool    func(context.Context, wire.ReleasePoolRequest) error
	RequestAddress func(context.Context, wire.RequestAddressRequest) (wire.RequestAddressResponse, error)
	ReleaseAddress func(context.Context, wire.ReleaseAddressRequest) error
}

// Serve listens on a unix socket until ctx ends. A socket that nobody listens on
// any more, left by a plugin that was killed, is replaced.
func (p Plugin) Serve(ctx context.Context, socket string) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return fmt.Errorf("making a place for the plugin's socket: %w", err)
	}
	if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket); err == nil {
		return errors.Join(fmt.Errorf("%s is in use: another plugin of that name runs (see: ss -xlp src %s)", socket, socket), conn.Close())
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing an old socket: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("listening on the plugin's socket: %w", err)
	}
	return p.ServeListener(ctx, listener)
}

// ServeListener is Serve for a listener of the caller's, which it closes.
func (p Plugin) ServeListener(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: p.Handler(), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // Serve returns then
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the plugin: %w", err)
	}
	return nil
}

// Handler returns what answers the calls.
func (p Plugin) Handler() http.Handler {
	mux := http.NewServeMux()
	var implements []string
	if p.Network != nil {
		implements = append(implements, wire.NetworkDriver)
		p.Network.handle(mux)
	}
	if p.IPAM != nil {
		implements = append(implements, wire.IpamDriver)
		p.IPAM.handle(mux)
	}
	answer(mux, "Plugin.Activate", wire.Activation{Implements: implements})
	return mux
}

func (n *Network) handle(mux *http.ServeMux) {
	capabilities := wire.Capabilities{Scope: n.Scope, ConnectivityScope: n.ConnectivityScope, GwAllocChecker: n.GwAllocCheck != nil}
	if capabilities.Scope == "" {
		capabilities.Scope = "local"
	}
	required(mux, "NetworkDriver.CreateNetwork", n.CreateNetwork)
	required(mux, "NetworkDriver.DeleteNetwork", n.DeleteNetwork)
	required(mux, "NetworkDriver.DeleteEndpoint", n.DeleteEndpoint)
	required(mux, "NetworkDriver.Leave", n.Leave)
	if n.CreateEndpoint == nil {
		answer(mux, "NetworkDriver.CreateEndpoint", struct{}{})
	}
	if n.Join == nil {
		answer(mux, "NetworkDriver.Join", struct{}{})
	}
	if n.OperInfo == nil {
		// Docker 20.10 takes "not supported" for a failure.
		answer(mux, "NetworkDriver.EndpointOperInfo", wire.OperInfoResponse{Value: map[string]any{}})
	}
	respond(mux, "NetworkDriver.CreateEndpoint", n.CreateEndpoint)
	respond(mux, "NetworkDriver.Join", n.Join)
	respond(mux, "NetworkDriver.GwAllocCheck", n.GwAllocCheck)
	respond(mux, "NetworkDriver.AllocateNetwork", n.AllocateNetwork)
	optional(mux, "NetworkDriver.FreeNetwork", n.FreeNetwork)
	respond(mux, "NetworkDriver.EndpointOperInfo", n.OperInfo)
	optional(mux, "NetworkDriver.ProgramExternalConnectivity", n.Program)
	optional(mux, "NetworkDriver.RevokeExternalConnectivity", n.Revoke)
	optional(mux, "NetworkDriver.DiscoverNew", n.DiscoverNew)
	optional(mux, "NetworkDriver.DiscoverDelete", n.DiscoverDelete)
	if n.Status != nil {
		capabilities.Extensions = append(capabilities.Extensions, wire.ExtensionStatus)
		respond(mux, "NetworkDriver.Status", func(ctx context.Context, _ struct{}) (wire.StatusResponse, error) { return n.Status(ctx) })
	}
	if n.Check != nil {
		capabilities.Extensions = append(capabilities.Extensions, wire.ExtensionCheck)
	}
	if n.Reconcile != nil {
		capabilities.Extensions = append(capabilities.Extensions, wire.ExtensionReconcile)
	}
	respond(mux, "NetworkDriver.Check", n.Check)
	respond(mux, "NetworkDriver.Reconcile", n.Reconcile)
	answer(mux, "NetworkDriver.GetCapabilities", capabilities)
}

func (i *IPAM) handle(mux *http.ServeMux) {
	answer(mux, "IpamDriver.GetCapabilities", i.Capabilities)
	answer(mux, "IpamDriver.GetDefaultAddressSpaces", i.Spaces)
	respond(mux, "IpamDriver.RequestPool", i.RequestPool)
	optional(mux, "IpamDriver.ReleasePool", i.ReleasePool)
	respond(mux, "IpamDriver.RequestAddress", i.RequestAddress)
	optional(mux, "IpamDriver.ReleaseAddress", i.ReleaseAddress)
}

// answer serves a call that has one answer.
func answer(mux *http.ServeMux, method string, value any) {
	mux.HandleFunc("POST /"+method, func(w http.ResponseWriter, _ *http.Request) { write(w, http.StatusOK, value) })
}

// required serves a call that succeeds when nobody cares for it.
func required[Q any](mux *http.ServeMux, method string, fn func(context.Context, Q) error) {
	if fn == nil {
		fn = func(context.Context, Q) error { return nil }
	}
	optional(mux, method, fn)
}

// optional serves a call without an answer, if there is somebody for it.
func optional[Q any](mux *http.ServeMux, method string, fn func(context.Context, Q) error) {
	if fn == nil {
		return
	}
	respond(mux, method, func(ctx context.Context, q Q) (struct{}, error) { return struct{}{}, fn(ctx, q) })
}

// respond serves a call, if there is somebody for it. Refusals carry the key of
// either kind of driver.
func respond[Q, A any](mux *http.ServeMux, method string, fn func(context.Context, Q) (A, error)) {
	if fn == nil {
		return
	}
	mux.HandleFunc("POST /"+method, func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil && !errors.Is(err, io.EOF) {
			refuse(w, http.StatusBadRequest, fmt.Errorf("reading %s: %w", method, err))
			return
		}
		a, err := fn(r.Context(), q)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err)
			return
		}
		write(w, http.StatusOK, a)
	})
}

func refuse(w http.ResponseWriter, status int, err error) {
	write(w, status, struct{ Err, Error string }{err.Error(), err.Error()})
}

func write(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value) //nolint:errcheck // the engine has hung up
}
