package api

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/mux"

	"github.com/linkspan/linkspan"
)

// Route is one line of the API. Paths are without version, in the notation of
// gorilla/mux.
type Route struct {
	Method, Path string
	handle       func(*Server, http.ResponseWriter, *http.Request) error
}

// Routes returns all that is served, in the order in which it is matched.
func Routes() []Route {
	var all []Route
	for _, family := range [][]Route{
		systemRoutes(), networkRoutes(), containerRoutes(), streamRoutes(), execRoutes(), imageRoutes(), transferRoutes(), volumeRoutes(), fileRoutes(), ownRoutes(), absentRoutes(),
	} {
		all = append(all, family...)
	}
	return all
}

func systemRoutes() []Route {
	return []Route{
		{"GET", "/_ping", (*Server).ping},
		{"HEAD", "/_ping", (*Server).ping},
		{"GET", "/version", (*Server).version},
		{"GET", "/info", (*Server).info},
		{"GET", "/events", (*Server).watchEvents},
		{"GET", "/system/df", (*Server).diskUsage},
	}
}

func networkRoutes() []Route {
	return []Route{
		{"GET", "/networks", (*Server).listNetworks},
		{"GET", "/networks/", (*Server).listNetworks},
		{"POST", "/networks/create", (*Server).createNetwork},
		{"POST", "/networks/prune", (*Server).pruneNetworks},
		{"GET", "/networks/{id}", (*Server).inspectNetwork},
		{"DELETE", "/networks/{id}", (*Server).removeNetwork},
		{"POST", "/networks/{id}/connect", (*Server).connect},
		{"POST", "/networks/{id}/disconnect", (*Server).disconnect},
	}
}

func containerRoutes() []Route {
	return []Route{
		{"GET", "/containers/json", (*Server).listContainers},
		{"POST", "/containers/create", (*Server).createContainer},
		{"POST", "/containers/prune", (*Server).pruneContainers},
		{"GET", "/containers/{name}/json", (*Server).inspectContainer},
		{"GET", "/containers/{name}/top", (*Server).top},
		{"GET", "/containers/{name}/stats", (*Server).stats},
		{"POST", "/containers/{name}/update", (*Server).updateContainer},
		{"POST", "/containers/{name}/start", (*Server).startContainer},
		{"POST", "/containers/{name}/stop", (*Server).stopContainer},
		{"POST", "/containers/{name}/restart", (*Server).restartContainer},
		{"POST", "/containers/{name}/kill", (*Server).killContainer},
		{"POST", "/containers/{name}/pause", (*Server).pauseContainer},
		{"POST", "/containers/{name}/unpause", (*Server).unpauseContainer},
		{"POST", "/containers/{name}/rename", (*Server).renameContainer},
		{"POST", "/containers/{name}/wait", (*Server).waitContainer},
		{"DELETE", "/containers/{name}", (*Server).removeContainer},
	}
}

func streamRoutes() []Route {
	return []Route{
		{"POST", "/containers/{name}/attach", (*Server).attach},
		{"GET", "/containers/{name}/attach/ws", (*Server).attachWebsocket},
		{"GET", "/containers/{name}/logs", (*Server).logs},
		{"POST", "/containers/{name}/resize", (*Server).resizeContainer},
	}
}

func execRoutes() []Route {
	return []Route{
		{"POST", "/containers/{name}/exec", (*Server).createExec},
		{"POST", "/exec/{id}/start", (*Server).startExec},
		{"POST", "/exec/{id}/resize", (*Server).resizeExec},
		{"GET", "/exec/{id}/json", (*Server).inspectExec},
	}
}

// ownRoutes are those that Docker does not have.
func ownRoutes() []Route {
	return []Route{
		{"GET", "/linkspan/v1/openapi.yaml", (*Server).describeAPI},
		{"POST", "/linkspan/v1/explain", (*Server).explain},
		{"POST", "/linkspan/v1/steps", (*Server).stepThrough},
		{"POST", "/linkspan/v1/steps/{id}", (*Server).acknowledgeStep},
		{"GET", "/linkspan/v1/plugins", (*Server).listOwnPlugins},
		{"GET", "/linkspan/v1/plugins/{name}", (*Server).inspectOwnPlugin},
		{"DELETE", "/linkspan/v1/plugins/{name}", (*Server).forgetOwnPlugin},
		{"POST", "/linkspan/v1/firewall/reapply", (*Server).reapplyFirewall},
		{"GET", "/linkspan/v1/ports", (*Server).listPorts},
		{"GET", "/linkspan/v1/containers/{name}/ports", (*Server).listPorts},
		{"POST", "/linkspan/v1/containers/{name}/ports", (*Server).publishPorts},
		{"DELETE", "/linkspan/v1/containers/{name}/ports", (*Server).unpublishPorts},
		{"GET", "/linkspan/v1/doctor", (*Server).diagnose},
		{"POST", "/linkspan/v1/doctor", (*Server).repair},
		{"PATCH", "/linkspan/v1/networks/{id}", (*Server).updateNetwork},
		{"POST", "/linkspan/v1/networks/{id}", (*Server).updateNetwork},
		{"GET", "/linkspan/v1/history", (*Server).watchHistory},
		{"GET", "/linkspan/v1/commands/host", (*Server).hostCommands},
		{"GET", "/linkspan/v1/commands/host/{ref}", (*Server).hostCommands},
		{"GET", "/linkspan/v1/commands/container/{ref}", (*Server).containerCommands},
		{"GET", "/linkspan/v1/commands/network/{ref}", (*Server).networkCommands},
		{"GET", "/linkspan/v1/containers/{ref}/links", (*Server).containerLinks},
	}
}

// containerPath lets a link of the default bridge name its target: web/db.
const containerPath = "/containers/{name:[^/]+(?:/[^/]+)?}"

// router makes the table a handler. Nothing is cleaned or redirected: an ID
// with slashes or dots in it is one that does not exist.
func (s *Server) router() http.Handler {
	router := mux.NewRouter().SkipClean(true).UseEncodedPath()
	for _, route := range Routes() {
		router.Methods(route.Method).Path(strings.Replace(route.Path, "/containers/{name}", containerPath, 1)).Handler(s.answering(route.handle))
	}
	// Docker knows no 405: a wrong method is no page.
	router.NotFoundHandler = http.HandlerFunc(notFound)
	router.MethodNotAllowedHandler = http.HandlerFunc(notFound)
	return router
}

func (s *Server) answering(handle func(*Server, http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
			s.fail(w, r, linkspan.Errorf(linkspan.ErrInvalid, "invalid query: %w", err))
			return
		}
		if err := handle(s, w, r); err != nil && !errors.Is(err, http.ErrAbortHandler) {
			s.fail(w, r, err)
		}
	})
}
