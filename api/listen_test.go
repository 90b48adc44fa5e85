package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	made := a.issue(true)
	a.cert, a.key = made.Leaf, made.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue makes a certificate for 127.0.0.1, or that of the authority itself.
func (a *authority) issue(root bool) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: root, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := template, key
	if !root {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	must(a.t, err)
	leaf, err := x509.ParseCertificate(der)
	must(a.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestListenTLS: over TCP only those are let in whose certificate is signed by
// the right authority.
func TestListenTLS(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ours.issue(false)}, ClientCAs: ours.pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	listener, err := Listen(t.Context(), "tcp://127.0.0.1:0", config)
	must(t, err)
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	ended := make(chan error)
	go func() { ended <- s.Serve(listener) }()
	ping := func(certificates ...tls.Certificate) (string, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ours.pool(), Certificates: certificates}}
		defer transport.CloseIdleConnections()
		answer, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Get("https://" + listener.Addr().String() + "/_ping")
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		return string(text), err
	}
	if got, err := ping(ours.issue(false)); err != nil || got != "OK" {
		t.Errorf("with a certificate: %q %v", got, err)
	}
	if got, err := ping(); err == nil {
		t.Errorf("without a certificate: %q", got)
	}
	if got, err := ping(others.issue(false)); err == nil {
		t.Errorf("with a certificate of others: %q", got)
	}
	must(t, s.Shutdown(t.Context()))
	must(t, <-ended)

	config.ClientAuth = tls.VerifyClientCertIfGiven
	if _, err := Listen(t.Context(), "tcp://127.0.0.1:0", config); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("without asking for certificates: %v", err)
	}
}
