package main

import (
	"context"
	"errors"
)

// runDaemon serves the API until ctx ends.
func runDaemon(_ context.Context, _ DaemonConfig) error {
	return errors.New("daemon: not wired")
}
