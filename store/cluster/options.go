package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linkspan/linkspan"
)

// Defaults of Options.
const (
	DefaultLife    = 10 * time.Second
	DefaultClaim   = 10 * time.Minute
	DefaultTimeout = 3 * time.Second
	DefaultPrefix  = "/linkspan"
)

// Options says where the store is and who asks. The zero value of what is not
// Endpoints or Self means the default.
type Options struct {
	Endpoints          []string    // host:port of etcd's members
	Prefix             string      // all keys begin with it and /v1/
	TLS                *tls.Config // nil: none
	Username, Password string

	// Self is this host. Its ID must outlive the daemon: the host's leases, and so
	// all that it has in the store, are found by it.
	Self Member

	Life    time.Duration // how long a host that is silent is alive for others; whole seconds
	Claim   time.Duration // how long it keeps its addresses; whole seconds
	Timeout time.Duration // of one question to the store

	// Dial connects to a member of etcd; nil: over TCP from where the process is.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	Logf func(format string, args ...any) // nil: nowhere
}

func (o Options) withDefaults() Options {
	o.Prefix = "/" + strings.Trim(cmp.Or(strings.Trim(o.Prefix, "/"), DefaultPrefix), "/")
	o.Life = cmp.Or(o.Life, DefaultLife)
	o.Claim = max(cmp.Or(o.Claim, DefaultClaim), o.Life)
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return o
}

// String returns the store as the user writes it, without secrets.
func (o Options) String() string {
	text := "etcd://" + strings.Join(o.Endpoints, ",")
	if o.Prefix != "" && o.Prefix != DefaultPrefix {
		text += o.Prefix
	}
	return text
}

// ParseStore reads the values of --cluster-store, such as
// "etcd://10.0.0.1:2379,10.0.0.2:2379/prefix", and of --cluster-store-opt:
//
//	kv.cacertfile kv.certfile kv.keyfile   files in PEM form; any of them turns TLS on
//	kv.username kv.password kv.passwordfile
//	kv.path                                the prefix, if the URL has none
//	discovery.ttl discovery.claim          seconds: how long a silent host lives, and keeps its addresses
//
// A user and a password may be in the URL as well, as in user:password@host.
// The files are read at once. Errors are of kind ErrInvalid.
func ParseStore(store string, settings map[string]string) (Options, error) {
	rest, ok := strings.CutPrefix(store, "etcd://")
	if !ok {
		return Options{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store %q: write etcd://HOST:PORT,HOST:PORT/PREFIX; no other store is supported", shown(store))
	}
	var o Options
	hosts, prefix, _ := strings.Cut(rest, "/")
	if at := strings.LastIndex(hosts, "@"); at >= 0 {
		user, password, _ := strings.Cut(hosts[:at], ":")
		hosts = hosts[at+1:]
		var err1, err2 error
		o.Username, err1 = url.PathUnescape(user)
		o.Password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return o, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store %q: the user or password is not percent-encoded", shown(store))
		}
	}
	for endpoint := range strings.SplitSeq(hosts, ",") {
		host, port, err := net.SplitHostPort(endpoint)
		if number, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || number == 0 || host == "" {
			return o, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store %q: %q is not HOST:PORT", shown(store), endpoint)
		}
		o.Endpoints = append(o.Endpoints, endpoint)
	}
	if prefix != "" {
		o.Prefix = "/" + strings.Trim(prefix, "/")
	}
	return o.set(settings)
}

// shown is a store's URL without its password.
func shown(store string) string {
	if at := strings.LastIndex(store, "@"); at >= 0 {
		return "etcd://…" + store[at:]
	}
	return store
}

func (o Options) set(settings map[string]string) (Options, error) {
	files := make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		value := settings[key]
		var err error
		switch key {
		case "kv.cacertfile", "kv.certfile", "kv.keyfile":
			files[key] = value
		case "kv.username":
			o.Username = value
		case "kv.password":
			o.Password = value
		case "kv.passwordfile":
			var raw []byte
			raw, err = os.ReadFile(value)
			o.Password = strings.TrimRight(string(raw), "\r\n")
		case "kv.path":
			if o.Prefix == "" {
				o.Prefix = "/" + strings.Trim(value, "/")
			}
		case "discovery.ttl":
			o.Life, err = wholeSeconds(value)
		case "discovery.claim":
			o.Claim, err = wholeSeconds(value)
		default:
			return o, linkspan.Errorf(linkspan.ErrInvalid, "unknown cluster store option %q: there are kv.cacertfile, kv.certfile, kv.keyfile, kv.username, kv.password, kv.passwordfile, kv.path, discovery.ttl and discovery.claim", key)
		}
		if err != nil {
			return o, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store option %s: %w", key, err)
		}
	}
	if (o.Username == "") != (o.Password == "") {
		return o, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store: a user needs a password and a password a user (kv.username, kv.password)")
	}
	var err error
	o.TLS, err = readTLS(files["kv.cacertfile"], files["kv.certfile"], files["kv.keyfile"])
	return o, err
}

func wholeSeconds(text string) (time.Duration, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err == nil && n < 2 {
		return 0, linkspan.Errorf(linkspan.ErrInvalid, "%q: etcd keeps no lease of less than two seconds", text)
	}
	return time.Duration(n) * time.Second, err
}

func readTLS(ca, cert, key string) (*tls.Config, error) {
	if ca == "" && cert == "" && key == "" {
		return nil, nil //nolint:nilnil // no file named: no TLS
	}
	if (cert == "") != (key == "") {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store options: kv.certfile and kv.keyfile need each other")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		raw, err := os.ReadFile(ca)
		if err != nil {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store option kv.cacertfile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(raw) {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store option kv.cacertfile: %s holds no certificate in PEM form", ca)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store options kv.certfile and kv.keyfile: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
