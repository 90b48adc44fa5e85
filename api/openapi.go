package api

import (
	_ "embed"
	"net/http"
)

// openAPI describes all routes, with their queries, bodies and answers, as an
// OpenAPI document. A new route is described there.
//
//go:embed openapi.yaml
var openAPI []byte

func (s *Server) describeAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, err := w.Write(openAPI)
	return err
}
