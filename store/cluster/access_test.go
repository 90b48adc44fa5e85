package cluster_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/store/cluster"
	"github.com/linkspan/linkspan/store/etcdtest"
)

// authority makes a certificate authority and certificates of it, and returns
// the folder with ca.pem, NAME.pem and NAME.key.
func authority(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, raw []byte) {
		must(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	ca, err := x509.ParseCertificate(raw)
	must(t, err)
	write("ca.pem", "CERTIFICATE", raw)
	for i, name := range names {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}, ca, own.Public(), key)
		must(t, err)
		write(name+".pem", "CERTIFICATE", raw)
		private, err := x509.MarshalECPrivateKey(own)
		must(t, err)
		write(name+".key", "EC PRIVATE KEY", private)
	}
	return dir
}

// with replaces the way to the store by that of an option of the daemon.
func with(t *testing.T, store string, settings map[string]string) func(*cluster.Options) {
	return func(o *cluster.Options) {
		read, err := cluster.ParseStore(store, settings)
		must(t, err)
		read.Self, read.Dial, read.Logf, read.Timeout = o.Self, o.Dial, o.Logf, 2*time.Second
		*o = read
	}
}

// TestTLS talks to a store that wants a certificate of its clients.
func TestTLS(t *testing.T) {
	m := nstest.New(t)
	dir := authority(t, "server", "client")
	settings := map[string]string{"kv.cacertfile": dir + "/ca.pem", "kv.certfile": dir + "/client.pem", "kv.keyfile": dir + "/client.key"}
	o, err := cluster.ParseStore("etcd://127.0.0.1:2379", settings)
	must(t, err)
	etcd := etcdtest.Start(t, m, etcdtest.Config{TLS: o.TLS, Flags: []string{
		"--cert-file", dir + "/server.pem", "--key-file", dir + "/server.key", "--trusted-ca-file", dir + "/ca.pem", "--client-cert-auth",
	}})
	etcd.Ready(t)
	store := "etcd://" + etcd.Endpoint()
	a := host(t, m, 1, store, with(t, store, settings))
	b := host(t, m, 2, store, with(t, store, settings))
	ready(t, a, b)
	join(t, a, lab(t, a, "lab", "10.0.0.0/24"), container("web"))
	eventually(t, "the other host knows", func() bool { return len(b.Networks()) == 1 && len(b.Endpoints(b.Networks()[0].ID)) == 1 })

	stranger := host(t, m, 3, store, with(t, store, map[string]string{"kv.cacertfile": dir + "/ca.pem"}))
	if _, err := stranger.CreateNetwork(t.Context(), record("other", "10.1.0.0/24")); !errors.Is(err, linkspan.ErrUnavailable) {
		t.Errorf("without a certificate: %v", err)
	}
	distrustful := host(t, m, 4, store, with(t, store, map[string]string{"kv.cacertfile": authority(t) + "/ca.pem"}))
	eventually(t, "it says why", func() bool {
		_, err := distrustful.CreateNetwork(t.Context(), record("other", "10.1.0.0/24"))
		return errors.Is(err, linkspan.ErrUnavailable) && strings.Contains(err.Error(), "certificate")
	})
}

// TestPassword talks to a store that knows users, as one that may do nothing but
// what is below its prefix.
func TestPassword(t *testing.T) {
	m := nstest.New(t)
	etcd := etcdtest.Alone(t, m)
	store := &client{from: m, endpoints: []string{etcd.Endpoint()}}
	raw := store.open(t)
	defer raw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, step := range []func() error{
		func() error { _, err := raw.RoleAdd(ctx, "root"); return err },
		func() error { _, err := raw.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := raw.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := raw.RoleAdd(ctx, "hosts"); return err },
		func() error {
			_, err := raw.RoleGrantPermission(ctx, "hosts", "/site/", clientv3.GetPrefixRangeEnd("/site/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := raw.UserAdd(ctx, "host", "pass:word"); return err },
		func() error { _, err := raw.UserGrantRole(ctx, "host", "hosts"); return err },
		func() error { _, err := raw.AuthEnable(ctx); return err },
	} {
		must(t, step())
	}
	url := "etcd://host:pass%3Aword@" + etcd.Endpoint() + "/site"
	a := host(t, m, 1, store.url(), with(t, url, nil))
	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte("pass:word\n"), 0o600))
	b := host(t, m, 2, store.url(), with(t, "etcd://"+etcd.Endpoint()+"/site", map[string]string{"kv.username": "host", "kv.passwordfile": file}))
	ready(t, a, b)
	web := join(t, a, lab(t, a, "lab", "10.0.0.0/24"), container("web"))
	eventually(t, "the other host knows", func() bool { return len(b.Networks()) == 1 && len(b.Endpoints(b.Networks()[0].ID)) == 1 })
	must(t, a.Leave(t.Context(), web))
	eventually(t, "the network can be removed", func() bool { return b.RemoveNetwork(t.Context(), web.Network) == nil })

	for name, change := range map[string]func(*cluster.Options){
		"authentication failed": with(t, "etcd://host:wrong@"+etcd.Endpoint()+"/site", nil),
		"permission denied":     with(t, "etcd://host:pass%3Aword@"+etcd.Endpoint()+"/elsewhere", nil),
		"user name is empty":    with(t, "etcd://"+etcd.Endpoint()+"/site", nil),
	} {
		stranger := host(t, m, 3, store.url(), change)
		eventually(t, "it says: "+name, func() bool { err := stranger.Err(); return err != nil && strings.Contains(err.Error(), name) })
		if _, err := stranger.CreateNetwork(t.Context(), record("other", "10.1.0.0/24")); !errors.Is(err, linkspan.ErrUnavailable) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseStore(t *testing.T) {
	o, err := cluster.ParseStore("etcd://10.0.0.1:2379,[fd00::1]:2379/a/b/", map[string]string{"discovery.ttl": "30", "discovery.claim": "900", "kv.path": "unused"})
	must(t, err)
	if strings.Join(o.Endpoints, " ") != "10.0.0.1:2379 [fd00::1]:2379" || o.Prefix != "/a/b" || o.Life != 30*time.Second || o.Claim != 15*time.Minute || o.TLS != nil {
		t.Errorf("%+v", o)
	}
	if o.String() != "etcd://10.0.0.1:2379,[fd00::1]:2379/a/b" {
		t.Errorf("shown as %s", o)
	}
	o, err = cluster.ParseStore("etcd://me:top%40secret@h:1", nil)
	must(t, err)
	if o.Username != "me" || o.Password != "top@secret" || strings.Contains(o.String(), "secret") {
		t.Errorf("%+v shown as %s", o, o)
	}
	for store, settings := range map[string]map[string]string{
		"consul://h:1":      nil,
		"etcd://":           nil,
		"etcd://h":          nil,
		"etcd://h:0":        nil,
		"etcd://h:70000":    nil,
		"etcd://h:1,":       nil,
		"etcd://u@h:1":      nil,
		"etcd://u:%zz@h:1":  nil,
		"etcd://h:1/a":      {"kv.nonsense": "1"},
		"etcd://h:1/b":      {"discovery.ttl": "soon"},
		"etcd://h:1/c":      {"discovery.ttl": "1"},
		"etcd://h:1/d":      {"kv.certfile": "/dev/null"},
		"etcd://h:1/e":      {"kv.cacertfile": "/dev/null"},
		"etcd://h:1/f":      {"kv.cacertfile": "/nowhere"},
		"etcd://h:1/g":      {"kv.password": "lonely"},
		"etcd://h:1/h":      {"kv.passwordfile": "/nowhere", "kv.username": "u"},
		"etcd://u:hush@h:x": nil,
	} {
		if _, err := cluster.ParseStore(store, settings); !errors.Is(err, linkspan.ErrInvalid) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s %v: %v", store, settings, err)
		}
	}
	if _, err := cluster.Open(t.Context(), cluster.Options{Endpoints: []string{"h:1"}}); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("a member without an ID: %v", err)
	}
}
