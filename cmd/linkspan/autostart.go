package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// startDaemon starts a daemon of default settings in a session of its own, so
// that it outlives this command and its terminal, and waits for its socket.
func (a *app) startDaemon(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding own program to start a daemon: %w", err)
	}
	logName := filepath.Join(filepath.Dir(defaultSocket), "daemon.log")
	if err = os.MkdirAll(filepath.Dir(logName), 0o711); err != nil {
		return fmt.Errorf("starting a daemon: %w", err)
	}
	log, err := os.OpenFile(logName, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("starting a daemon: %w", err)
	}
	defer log.Close()
	// The daemon must not die with this command's context.
	daemon := exec.CommandContext(context.WithoutCancel(ctx), self, "daemon")
	daemon.Stdout, daemon.Stderr = log, log
	daemon.Dir = "/"
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err = daemon.Start(); err != nil {
		return fmt.Errorf("starting a daemon: %w", err)
	}
	fmt.Fprintf(a.err, "linkspan: no daemon at %s: started one, process %d, log in %s\n", defaultSocket, daemon.Process.Pid, logName)
	gone := make(chan error, 1)
	go func() {
		// A daemon that ends well has still not served.
		err := daemon.Wait()
		gone <- cmp.Or(err, errors.New("exit status 0"))
	}()
	return awaitSocket(ctx, defaultSocket, gone, logName)
}

// awaitSocket returns when a socket takes connections; an error when the
// process that should serve it is gone, or after five seconds.
func awaitSocket(ctx context.Context, socket string, gone <-chan error, logName string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
			return conn.Close()
		}
		select {
		case err := <-gone:
			return fmt.Errorf("starting a daemon: it ended at once (%w): %s: see %s", err, lastLine(logName), logName)
		case <-ctx.Done():
			return fmt.Errorf("starting a daemon: no answer at %s within 5 s: see %s", socket, logName)
		case <-tick.C:
		}
	}
}

// lastLine returns a daemon's last words.
func lastLine(name string) string {
	content, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return lines[len(lines)-1]
}
