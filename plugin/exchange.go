package plugin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	mediaType = "application/vnd.docker.plugins.v1.2+json"
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 1 << 20
)

// transport reaches the place of one plugin. Each call has a connection of its
// own: that costs some 20 µs on a unix socket, and in return a call that cannot
// reach anybody is known not to have been heard.
type transport struct {
	place  Place
	client *http.Client
	base   string // what method names are appended to
}

func newTransport(place Place) (*transport, error) {
	t := &transport{place: place}
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	t.client = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if path := place.Socket(); path != "" {
		t.base = "http://plugin.moby.localhost/"
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, "unix", path) }
		return t, nil
	}
	tr.DialContext = dial
	u, err := url.Parse(place.URL)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", place.File, err)
	}
	scheme := u.Scheme
	if scheme == "tcp" {
		scheme = "http"
		if place.TLS != nil {
			scheme = "https"
		}
	}
	if scheme == "https" {
		if tr.TLSClientConfig, err = place.TLS.config(); err != nil {
			return nil, fmt.Errorf("reading the TLSConfig of %s: %w", place.File, err)
		}
	}
	t.base = scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/") + "/"
	return t, nil
}

// config reads the files that a .json file names.
func (t *TLS) config() (*tls.Config, error) {
	if t == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12}, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.InsecureSkipVerify || t.CAFile == ""} //nolint:gosec // what the file asks for, as with Docker
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// expected is the key in a context under which dialling checks the peer.
type expected struct{}

// dial connects, and makes sure that the process at the other end is the
// expected one.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, unreached{err}
	}
	if check, ok := ctx.Value(expected{}).(func(peer string) error); ok {
		if err := check(peerOf(conn)); err != nil {
			conn.Close() //nolint:errcheck // nothing was sent
			return nil, unreached{err}
		}
	}
	return conn, nil
}

// peerOf names the process that listens at the other end of a unix socket, and
// the socket: one of them differs when a plugin was started again. It returns ""
// where that cannot be known.
func peerOf(conn net.Conn) string {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return ""
	}
	pid := int32(0)
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = cred.Pid
		}
	})
	var st unix.Stat_t
	if err != nil || unix.Stat(conn.RemoteAddr().String(), &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d %d %d.%d", pid, st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
}

// errAnother says that another process answers than the one that was asked what
// it is.
var errAnother = errors.New("the plugin was started again")

// exchange makes one call, if the plugin is still the same process, and was met.
func (l *Line) exchange(ctx context.Context, method string, message, answer any) error {
	check := func(peer string) error { return l.same(peer, l.meeting(ctx)) }
	return l.post(context.WithValue(ctx, expected{}, check), method, message, answer)
}

// introduction makes a call to whoever answers.
func (l *Line) introduction(ctx context.Context, method string, answer any) error {
	return l.post(context.WithValue(ctx, expected{}, l.recognise), method, nil, answer)
}

func (l *Line) same(peer string, meeting bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if peer != l.peer {
		l.about = nil
		return errAnother
	}
	if l.met != l.process && !meeting {
		return errAnother
	}
	return nil
}

func (l *Line) recognise(peer string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if peer != l.peer {
		l.another = l.another || l.peer != ""
		l.stranger(peer)
	}
	return nil
}

// post sends one message. An error is unreached if it was certainly not heard,
// garbled or a *Refusal if there was an answer; any other leaves it open.
func (l *Line) post(ctx context.Context, method string, message, answer any) error {
	l.mu.Lock()
	tr := l.wire
	l.mu.Unlock()
	if tr == nil {
		return unreached{errAnother}
	}
	var body io.Reader
	if message != nil {
		raw, err := json.Marshal(message)
		if err != nil {
			return unreached{fmt.Errorf("writing the message: %w", err)}
		}
		body = bytes.NewReader(append(raw, '\n'))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, tr.base+method, body)
	if err != nil {
		return unreached{err}
	}
	request.Header.Set("Accept", mediaType)
	response, err := tr.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return l.read(method, response.StatusCode, raw, answer)
}

// garbled is an answer that cannot be read.
type garbled struct{ err error }

func (g garbled) Error() string { return g.err.Error() }
func (g garbled) Unwrap() error { return g.err }

// read judges an answer by its body, whatever its headers say: plugins answer
// null, {} or nothing for success; an error as Err (network drivers) or Error
// (IPAM drivers), with status 200 or 500; or plain text.
func (l *Line) read(method string, status int, raw []byte, answer any) error {
	if len(raw) > maxAnswer {
		return garbled{fmt.Errorf("the answer is longer than %d bytes", maxAnswer)}
	}
	var refused struct{ Err, Error string }
	decoder := json.NewDecoder(bytes.NewReader(raw)) // the first value counts, should it answer twice
	err := decoder.Decode(&refused)
	text := refused.Err + refused.Error
	if status != http.StatusOK {
		if err != nil || text == "" {
			text = strings.TrimSpace(shorten(raw))
		}
		return &Refusal{Plugin: l.name, Method: method, Status: status, Text: text}
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	if err != nil {
		return garbled{fmt.Errorf("the answer is no JSON object: %q: %w", shorten(raw), err)}
	}
	if text != "" {
		return &Refusal{Plugin: l.name, Method: method, Status: status, Text: text}
	}
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(answer); err != nil {
		return garbled{fmt.Errorf("the answer does not fit: %q: %w", shorten(raw), err)}
	}
	return nil
}

// shorten keeps what a person can read of an answer.
func shorten(raw []byte) string {
	const enough = 200
	if len(raw) > enough {
		return string(raw[:enough]) + "…"
	}
	return string(raw)
}
