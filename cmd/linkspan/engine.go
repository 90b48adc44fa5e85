package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/moby/moby/client"
)

const (
	defaultSocket = "/run/linkspan/linkspan.sock"
	defaultHost   = "unix://" + defaultSocket
)

// engine is a daemon that answered. Its methods are those of Docker's client;
// send makes the calls that the client has no method or another opinion for.
// Safe for concurrent use.
type engine struct {
	*client.Client
	plain *http.Client
}

// call is one request of the API. Its Path has no version in front.
type call struct {
	Method string
	Path   string // with its query
	Body   any    `json:",omitempty"` // nil for none
}

// daemonError is a refusal by the daemon, printed as Docker's command does so
// that scripts that look for it go on working.
type daemonError struct {
	status  int // of HTTP
	message string
}

func (e *daemonError) Error() string { return "Error response from daemon: " + e.message }

// where returns the daemon's address, and whether the user chose it.
func (a *app) where() (host string, chosen bool) {
	env, _ := a.getenv("LINKSPAN_HOST")
	host = cmp.Or(a.host, env)
	if host == "" {
		return defaultHost, false
	}
	switch {
	case strings.Contains(host, "://"):
	case strings.HasPrefix(host, "/"):
		host = "unix://" + host
	default:
		host = "tcp://" + host
	}
	return host, true
}

// connect reaches the daemon and agrees with it on an API version. With no
// daemon at the default socket, and the rights to, it starts one.
func (a *app) connect(ctx context.Context) (*engine, error) {
	host, chosen := a.where()
	found, err := dial(ctx, host)
	if err == nil {
		return found, nil
	}
	dead := errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
	if dead && !chosen && os.Geteuid() == 0 {
		if startErr := a.startDaemon(ctx); startErr != nil {
			return nil, startErr
		}
		if found, err = dial(ctx, host); err == nil {
			return found, nil
		}
	}
	if dead {
		return nil, fmt.Errorf("cannot connect to the daemon at %s: %w: start one with `linkspan daemon`, or choose another with -H or LINKSPAN_HOST", host, err)
	}
	return nil, fmt.Errorf("cannot connect to the daemon at %s: %w", host, err)
}

func dial(ctx context.Context, host string) (*engine, error) {
	cli, err := client.New(client.WithHost(host), client.WithUserAgent("linkspan/"+version))
	if err != nil {
		return nil, err
	}
	// The client hides why it cannot connect; a look of our own tells.
	probe, err := cli.Dialer()(ctx)
	if err != nil {
		return nil, err
	}
	probe.Close()
	if _, err = cli.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return nil, err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return cli.Dialer()(ctx)
	}}
	return &engine{Client: cli, plain: &http.Client{Transport: transport}}, nil
}

// do sends a call of the Docker API and decodes the answer into result,
// unless that is nil.
func (e *engine) do(ctx context.Context, c call, result any) error {
	c.Path = "/v" + e.ClientVersion() + c.Path
	resp, err := e.send(ctx, c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if result == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(result); err != nil {
		return fmt.Errorf("reading answer to %s %s: %w", c.Method, c.Path, err)
	}
	return nil
}

// text sends a call and returns the answer as it is.
func (e *engine) text(ctx context.Context, c call) (string, error) {
	resp, err := e.send(ctx, c)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("reading answer to %s %s: %w", c.Method, c.Path, err)
	}
	return string(body), nil
}

// send makes a request with no version put in front of its path. The caller
// closes the body. A status of 400 and above becomes a *daemonError.
func (e *engine) send(ctx context.Context, c call) (*http.Response, error) {
	var body io.Reader
	if c.Body != nil {
		var encoded bytes.Buffer
		encoder := json.NewEncoder(&encoded)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(c.Body); err != nil {
			return nil, fmt.Errorf("encoding request: %w", err)
		}
		body = &encoded
	}
	req, err := http.NewRequestWithContext(ctx, c.Method, "http://linkspan"+c.Path, body)
	if err != nil {
		return nil, fmt.Errorf("making request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "linkspan/"+version)
	resp, err := e.plain.Do(req)
	if err != nil {
		// The URL names a host that does not exist; the cause is enough.
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("asking the daemon: %w", err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal reads the daemon's words from an error response.
func refusal(resp *http.Response) error {
	const limit = 1 << 20 // bytes; a message is a few hundred
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return fmt.Errorf("reading error response from daemon: %w", err)
	}
	var said struct {
		Message string `json:"message"`
	}
	message := strings.TrimSpace(string(raw))
	if json.Unmarshal(raw, &said) == nil && said.Message != "" {
		message = strings.TrimSpace(said.Message)
	}
	return &daemonError{status: resp.StatusCode, message: cmp.Or(message, resp.Status)}
}

// segment escapes a name for use in a path: a name with a slash must not
// reach another route.
func segment(name string) (string, error) {
	trimmed := strings.TrimSpace(name)
	if trimmed == "" {
		return "", errors.New("invalid name or ID: value is empty")
	}
	if trimmed == "." || trimmed == ".." {
		return "", fmt.Errorf("invalid name or ID: %q", name)
	}
	return url.PathEscape(trimmed), nil
}

// path joins fixed parts and one name, and adds a query.
func path(before, name, after string, query url.Values) (string, error) {
	escaped, err := segment(name)
	if err != nil {
		return "", err
	}
	joined := before + escaped + after
	if len(query) > 0 {
		joined += "?" + query.Encode()
	}
	return joined, nil
}
