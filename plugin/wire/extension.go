package wire

// The optional calls that Docker does not have. A plugin that offers them says
// so in Capabilities.Extensions; nobody else is asked.
const (
	ExtensionStatus    = "Status"
	ExtensionCheck     = "Check"
	ExtensionReconcile = "Reconcile"
)

// StatusResponse is how the plugin does (NetworkDriver.Status).
type StatusResponse struct {
	Healthy bool
	Message string `json:",omitempty"`
}

// CheckResponse lists what is amiss with an endpoint (NetworkDriver.Check, whose
// request is an EndpointRequest) in words for a person.
type CheckResponse struct{ Problems []string }

// ReconcileRequest tells a plugin all that the engine holds of it
// (NetworkDriver.Reconcile): it may drop anything else.
type ReconcileRequest struct {
	Networks  []string
	Endpoints []EndpointRequest
}

// ReconcileResponse names what the plugin does not know: the engine announces
// it again.
type ReconcileResponse struct {
	UnknownNetworks  []string
	UnknownEndpoints []EndpointRequest
}
