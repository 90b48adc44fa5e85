package api

import (
	"context"
	"net/http"

	"github.com/linkspan/linkspan/op"
)

type mender interface {
	Reapply(context.Context) (op.Plan, error)
}

// Reapplied is the answer of the route that puts back the firewall's rules.
type Reapplied struct {
	Steps []ReappliedStep // none: nothing was missing
}

// ReappliedStep is something that was missing, and the command that brings it
// back.
type ReappliedStep struct{ Why, Command string }

// reapplyFirewall compares the firewall's rules with what they should be, and
// puts back what is missing.
func (s *Server) reapplyFirewall(w http.ResponseWriter, r *http.Request) error {
	done, err := s.networks.Reapply(acting(r))
	if err != nil {
		return err
	}
	answer := Reapplied{Steps: []ReappliedStep{}}
	for _, step := range done {
		answer.Steps = append(answer.Steps, ReappliedStep{step.Why, step.Op.String()})
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}
