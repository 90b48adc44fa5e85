package api

import (
	"context"
	"net/http"

	"github.com/linkspan/linkspan/doctor"
)

type diagnoser interface {
	Diagnose(context.Context) ([]doctor.Finding, error)
	Repair(context.Context)
}

// Diagnosis is the answer of the doctor routes.
type Diagnosis struct {
	Findings []doctor.Finding
}

// diagnose says what keeps packets from passing.
func (s *Server) diagnose(w http.ResponseWriter, r *http.Request) error {
	found, err := s.networks.Diagnose(r.Context())
	if err != nil {
		return err
	}
	if found == nil {
		found = []doctor.Finding{}
	}
	writeJSON(w, http.StatusOK, Diagnosis{found})
	return nil
}

// repair mends what is the engine's own, and says what is left.
func (s *Server) repair(w http.ResponseWriter, r *http.Request) error {
	s.networks.Repair(acting(r))
	return s.diagnose(w, r)
}
