package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// socketMode lets the owner and the group docker in, and nobody else: whoever
// may talk to the daemon is root.
const socketMode = 0o660

// Listen opens the socket that an address such as unix:///run/linkspan/linkspan.sock
// names. A socket file that nobody answers on is replaced; one that a daemon
// answers on is an error of kind ErrConflict. TCP is refused with ErrInvalid
// unless secure asks clients for certificates: it would make anybody root.
func Listen(ctx context.Context, address string, secure *tls.Config) (net.Listener, error) {
	scheme, path, _ := strings.Cut(address, "://")
	switch {
	case scheme == "tcp":
		return listenTLS(ctx, address, path, secure)
	case scheme != "unix":
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "listening on %s: want unix:///path", address)
	case !filepath.IsAbs(path):
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "listening on %s: the path must be absolute", address)
	case len(path) >= len(unix.RawSockaddrUnix{}.Path):
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "listening on %s: the path is longer than the %d bytes that a socket may have", address, len(unix.RawSockaddrUnix{}.Path)-1)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	// The mode of the socket becomes that of the file in the same call that
	// makes it, so that the file is at no time open to more people.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), socketMode) })
		return errors.Join(err, failed)
	}}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	if err := admitGroup(path); err != nil {
		return nil, errors.Join(fmt.Errorf("listening on %s: %w", address, err), listener.Close())
	}
	return listener, nil
}

// listenTLS opens host:port. Connections that become streams are no HTTP/2.
func listenTLS(ctx context.Context, address, port string, secure *tls.Config) (net.Listener, error) {
	if secure == nil || secure.ClientAuth != tls.RequireAndVerifyClientCert {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "listening on %s: TCP needs TLS with client certificates (--tlsverify); or use unix:///path", address)
	}
	secure = secure.Clone()
	secure.NextProtos = []string{"http/1.1"}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", port)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	return tls.NewListener(listener, secure), nil
}

// clearStale removes what an earlier daemon left, and nothing else.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking at %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return linkspan.Errorf(linkspan.ErrConflict, "%s exists and is not a socket: move it away, or give another -H", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close() //nolint:errcheck // it was only a question
		return linkspan.Errorf(linkspan.ErrConflict, "a daemon answers on %s already (see: ss -xlp src %s); stop it, or give another -H", path, path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("asking who listens on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the stale socket %s: %w", path, err)
	}
	return nil
}

// admitGroup gives the socket to the group docker, where there is one.
func admitGroup(path string) error {
	gid := 0
	if group, err := user.LookupGroup("docker"); err == nil {
		if gid, err = strconv.Atoi(group.Gid); err != nil {
			return fmt.Errorf("reading the group docker: %w", err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 0, gid); err != nil {
			return err
		}
	}
	// The umask may have taken bits away.
	return os.Chmod(path, socketMode)
}
