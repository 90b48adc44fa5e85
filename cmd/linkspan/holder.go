package main

import (
	"os"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/sandbox"
)

// holder lets the controller, which comes first, reach the shims by way of the
// launcher.
type holder struct{ s *stack }

func (h holder) Keep(owner linkspan.ID, files []*os.File) error {
	return h.s.containers.Keep(owner, files)
}

func (h holder) Holding(owner linkspan.ID) ([]kernel.Hold, error) {
	return h.s.containers.Holding(owner)
}

func (h holder) Hold(owner linkspan.ID, wanted []sandbox.Port, fresh []kernel.Hold, sockets kernel.Sockets) error {
	return h.s.containers.Hold(owner, wanted, fresh, sockets)
}
