package api

import (
	"net/http"

	"github.com/linkspan/linkspan"
)

// absence is a group of routes that are not served for one reason.
type absence struct {
	kind  error
	text  string
	paths []Route
}

// absentRoutes are those of the Docker Engine API that are not served, each
// with what to say. A client hears that, and not that the page is unknown.
func absentRoutes() []Route {
	var routes []Route
	for _, group := range absences() {
		refuse := func(*Server, http.ResponseWriter, *http.Request) error {
			return linkspan.Errorf(group.kind, "%s", group.text)
		}
		for _, route := range group.paths {
			route.handle = refuse
			routes = append(routes, route)
		}
	}
	for _, verb := range []string{"enable", "disable", "push", "set", "upgrade"} {
		routes = append(routes, Route{"POST", "/plugins/{name:.*}/" + verb, (*Server).missingPlugin})
	}
	return append(routes,
		Route{"GET", "/plugins", (*Server).listPlugins},
		Route{"GET", "/plugins/{name:.*}/json", (*Server).missingPlugin},
		Route{"DELETE", "/plugins/{name:.*}", (*Server).missingPlugin},
	)
}

func absences() []absence {
	return []absence{
		{linkspan.ErrNotImplemented, "searching is not supported: registries have no common way to", []Route{{Method: "GET", Path: "/images/search"}}},
		{linkspan.ErrNotImplemented, "docker build is not supported: there is no builder here. Build elsewhere, then docker load or docker pull the image", []Route{
			{Method: "POST", Path: "/build"}, {Method: "POST", Path: "/build/prune"}, {Method: "POST", Path: "/build/cancel"}, {Method: "POST", Path: "/session"}, {Method: "POST", Path: "/grpc"},
		}},
		{linkspan.ErrUnavailable, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`, swarmRoutes()},
		{linkspan.ErrUnavailable, "This node is not part of a swarm", []Route{{Method: "POST", Path: "/swarm/leave"}}},
		{linkspan.ErrNotImplemented, "there is no swarm mode here", []Route{
			{Method: "POST", Path: "/swarm/init"}, {Method: "POST", Path: "/swarm/join"},
		}},
		{linkspan.ErrNotImplemented, "installing plugins is not supported: run the plugin yourself; its socket is found in /run/docker/plugins and in --plugin-dir", []Route{
			{Method: "GET", Path: "/plugins/privileges"},
			{Method: "POST", Path: "/plugins/pull"},
			{Method: "POST", Path: "/plugins/create"},
		}},
	}
}

// swarmRoutes are those that only a manager of a swarm answers.
func swarmRoutes() []Route {
	routes := []Route{
		{Method: "GET", Path: "/swarm"},
		{Method: "POST", Path: "/swarm/update"},
		{Method: "GET", Path: "/swarm/unlockkey"},
		{Method: "POST", Path: "/swarm/unlock"},
		{Method: "GET", Path: "/services/{id}/logs"},
		{Method: "GET", Path: "/tasks/{id}/logs"},
		{Method: "GET", Path: "/tasks"},
		{Method: "GET", Path: "/tasks/{id}"},
	}
	for _, kind := range []string{"nodes", "services", "secrets", "configs"} {
		routes = append(routes,
			Route{Method: "GET", Path: "/" + kind},
			Route{Method: "GET", Path: "/" + kind + "/{id}"},
			Route{Method: "DELETE", Path: "/" + kind + "/{id}"},
			Route{Method: "POST", Path: "/" + kind + "/{id}/update"},
			Route{Method: "POST", Path: "/" + kind + "/create"},
		)
	}
	return routes
}

func (s *Server) listPlugins(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, []struct{}{})
	return nil
}

func (s *Server) missingPlugin(_ http.ResponseWriter, r *http.Request) error {
	return linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", variable(r, "name"))
}
