package plugin_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/plugintest"
	"github.com/linkspan/linkspan/plugin/wire"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// scripted answers each call with a status and a text.
type scripted map[string]func() (int, string)

func says(status int, text string) func() (int, string) {
	return func() (int, string) { return status, text }
}

func (s scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, ok := s[strings.TrimPrefix(r.URL.Path, "/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	status, text := answer()
	if status == 0 {
		panic(http.ErrAbortHandler) // it dies
	}
	w.Header().Set("Content-Type", "text/html") // nobody must care
	w.WriteHeader(status)
	w.Write([]byte(text)) //nolint:errcheck // the caller has hung up
}

func network(more scripted) scripted {
	s := scripted{
		"Plugin.Activate":               says(200, `{"Implements":["NetworkDriver"]}`),
		"NetworkDriver.GetCapabilities": says(200, `{"Scope":"local"}`),
	}
	for call, answer := range more {
		s[call] = answer
	}
	return s
}

func directory(t *testing.T, o plugin.Options) *plugin.Directory {
	t.Helper()
	if o.Sockets == nil {
		o.Sockets = []string{}
	}
	if o.Specs == nil {
		o.Specs = []string{}
	}
	o.Logf = t.Logf
	d := plugin.NewDirectory(o)
	t.Cleanup(d.Close)
	return d
}

func TestDiscovery(t *testing.T) {
	root := t.TempDir()
	own, sockets, specs := filepath.Join(root, "own"), filepath.Join(root, "sockets"), filepath.Join(root, "specs")
	server := httptest.NewServer(network(nil))
	defer server.Close()
	secure := httptest.NewTLSServer(network(nil))
	defer secure.Close()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	plugintest.Serve(t, filepath.Join(sockets, "plain.sock"), plugintest.HTTP{Handler: network(nil)})
	plugintest.Serve(t, filepath.Join(sockets, "nested", "nested.sock"), plugintest.HTTP{Handler: network(nil)})
	plugintest.Serve(t, filepath.Join(own, "both.sock"), plugintest.HTTP{Handler: network(nil)})
	write(filepath.Join(specs, "both.spec"), "tcp://127.0.0.1:1\n")
	write(filepath.Join(specs, "spec.spec"), "  tcp://"+server.Listener.Addr().String()+"\n")
	write(filepath.Join(specs, "deep", "deep.spec"), server.URL)
	write(filepath.Join(specs, "secure.json"), fmt.Sprintf(`{"Name":"secure","Addr":%q,"TLSConfig":{}}`, secure.URL))
	write(filepath.Join(specs, "odd.spec"), "gopher://here")
	write(filepath.Join(specs, "broken.json"), "{")
	write(filepath.Join(sockets, "file.sock"), "no socket")
	d := directory(t, plugin.Options{Dirs: []string{own}, Sockets: []string{sockets}, Specs: []string{specs}})
	for _, name := range []string{"plain", "nested", "both", "spec", "deep", "secure"} {
		if err := d.Wake(t.Context(), name, wire.NetworkDriver); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"odd": "Unknown protocol", "broken": "broken.json", "file": `plugin "file" not found`, "none": `plugin "none" not found`,
		"../plain": "not found", "": "not found",
	} {
		if err := d.Wake(t.Context(), name, wire.NetworkDriver); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	if err := d.Wake(t.Context(), "none", wire.NetworkDriver); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("a plugin that is not there: %v", err)
	}
	if err := d.Wake(t.Context(), "plain", wire.IpamDriver); err == nil || !strings.Contains(err.Error(), `plugin="plain", requested implementation="IpamDriver"`) {
		t.Errorf("a plugin of another kind: %v", err)
	}
	if got := d.Names(t.Context(), wire.NetworkDriver); strings.Join(got, " ") != "both deep nested plain secure spec" {
		t.Errorf("names: %v", got)
	}
}

// Answers as they are seen in the wild.
func TestAnswers(t *testing.T) {
	const call = "NetworkDriver.CreateEndpoint"
	tests := []struct {
		name   string
		status int
		text   string
		want   string // of the error; "": success
	}{
		{"null", 200, "null", ""},
		{"empty object", 200, "{}", ""},
		{"nothing", 200, "", ""},
		{"null inside", 200, `{"Interface":null}`, ""},
		{"empty inside", 200, `{"Interface":{}}`, ""},
		{"more than asked", 200, `{"Interface":{"MacAddress":"02:00:00:00:00:01"},"Extra":[1]}`, ""},
		{"twice", 200, `{}{"Err":"too late"}`, ""},
		{"refused with 200", 200, `{"Err":"no room"}`, "remote: no room"},
		{"refused with Error", 200, `{"Error":"no room"}`, "remote: no room"},
		{"refused with 500", 500, `{"Err":"no room"}`, "no room"},
		{"refused in plain text", 500, "no room\n", "no room"},
		{"unknown", 404, "404 page not found", "404 page not found"},
		{"garbage", 200, "<html>", "no JSON"},
		{"a list", 200, "[]", "no JSON object"},
		{"a wrong type", 200, `{"Interface":7}`, "does not fit"},
		{"death", 0, "", "closed the connection"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			plugintest.Serve(t, filepath.Join(dir, "lab.sock"), plugintest.HTTP{Handler: network(scripted{call: says(test.status, test.text)})})
			d := directory(t, plugin.Options{Sockets: []string{dir}})
			var answer wire.CreateEndpointResponse
			err := d.Line("lab").Call(t.Context(), call, wire.CreateEndpointRequest{}, &answer)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), call) || !strings.Contains(err.Error(), `"lab"`) {
				t.Errorf("%v: want %q, the call and the plugin's name", err, test.want)
			}
			if wanted := test.status == 0 || test.status == 200 && !strings.Contains(test.want, "remote"); plugin.InDoubt(err) != wanted {
				t.Errorf("in doubt is %v: %v", plugin.InDoubt(err), err)
			}
			if plugin.Unsupported(err) != (test.status == 404) {
				t.Errorf("unsupported is %v: %v", plugin.Unsupported(err), err)
			}
		})
	}
}

// What is sent is what Docker sends.
func TestRequest(t *testing.T) {
	dir := t.TempDir()
	var seen *http.Request
	var body map[string]any
	plugintest.Serve(t, filepath.Join(dir, "lab.sock"), plugintest.HTTP{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "Leave") {
			seen = r.Clone(context.WithoutCancel(r.Context()))
			json.NewDecoder(r.Body).Decode(&body) //nolint:errcheck // compared below
		}
		network(scripted{"NetworkDriver.Leave": says(200, "{}")}).ServeHTTP(w, r)
	})})
	d := directory(t, plugin.Options{Sockets: []string{dir}})
	if err := d.Line("lab").Call(t.Context(), "NetworkDriver.Leave", wire.EndpointRequest{NetworkID: "n", EndpointID: "e"}, nil); err != nil {
		t.Fatal(err)
	}
	if seen.Method != "POST" || seen.Header.Get("Accept") != "application/vnd.docker.plugins.v1.2+json" || seen.Header.Get("Content-Type") != "" || seen.Host != "plugin.moby.localhost" {
		t.Errorf("%s %s %v", seen.Method, seen.Host, seen.Header)
	}
	if body["NetworkID"] != "n" || body["EndpointID"] != "e" || len(body) != 2 {
		t.Errorf("body %v", body)
	}
}

// A plugin that never learned to introduce itself is tried.
func TestWithoutActivation(t *testing.T) {
	dir := t.TempDir()
	plugintest.Serve(t, filepath.Join(dir, "lab.sock"), plugintest.HTTP{Handler: scripted{"NetworkDriver.GetCapabilities": says(200, `{"Scope":"local","ConnectivityScope":"global"}`)}})
	d := directory(t, plugin.Options{Sockets: []string{dir}})
	if err := d.Wake(t.Context(), "lab", wire.NetworkDriver); err != nil {
		t.Error(err)
	}
	if err := d.Wake(t.Context(), "lab", wire.IpamDriver); err == nil {
		t.Error("it passes for an IPAM driver, too")
	}
}

// The line is cut while a plugin is silent, and mended by itself.
func TestLineIsCutAndMended(t *testing.T) {
	dir := t.TempDir()
	var silent atomic.Bool
	var calls atomic.Int64
	handler := network(scripted{"NetworkDriver.Leave": says(200, "{}")})
	plugintest.Serve(t, filepath.Join(dir, "lab.sock"), plugintest.HTTP{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if silent.Load() {
			<-r.Context().Done()
			return
		}
		handler.ServeHTTP(w, r)
	})})
	up := make(chan string, 1)
	d := directory(t, plugin.Options{
		Sockets: []string{dir}, Deadline: 200 * time.Millisecond, Brief: 100 * time.Millisecond, Patience: 50 * time.Millisecond,
		Up: func(name string) { up <- name },
	})
	leave := func() error {
		return d.Line("lab").Call(t.Context(), "NetworkDriver.Leave", wire.EndpointRequest{}, nil)
	}
	if err := leave(); err != nil {
		t.Fatal(err)
	}
	silent.Store(true)
	if err := leave(); !errors.Is(err, linkspan.ErrUnavailable) || !plugin.InDoubt(err) {
		t.Errorf("a silent plugin: %v", err)
	}
	if err := d.Watch("lab"); err == nil {
		t.Error("the plugin passes for well")
	}
	if err := leave(); err == nil || plugin.InDoubt(err) || !strings.Contains(err.Error(), "is away since") {
		t.Errorf("a call on a cut line: %v", err)
	}
	silent.Store(false)
	select {
	case <-up:
	case <-time.After(20 * time.Second):
		t.Fatal("the line is not mended")
	}
	if err := leave(); err != nil {
		t.Error(err)
	}
}

// A plugin that was started again is made acquainted first.
func TestRestartIsNoticed(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "lab.sock")
	var activations atomic.Int64
	handler := network(scripted{
		"NetworkDriver.Leave": says(200, "{}"),
		"Plugin.Activate": func() (int, string) {
			activations.Add(1)
			return 200, `{"Implements":["NetworkDriver"]}`
		},
	})
	server := plugintest.Serve(t, socket, plugintest.HTTP{Handler: handler})
	up := make(chan string, 1)
	d := directory(t, plugin.Options{Sockets: []string{dir}, Up: func(name string) { up <- name }})
	line := d.Line("lab")
	for range 3 {
		if err := line.Call(t.Context(), "NetworkDriver.Leave", wire.EndpointRequest{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	line.Note("something")
	server.Stop()
	plugintest.Serve(t, socket, plugintest.HTTP{Handler: handler})
	if err := line.Call(t.Context(), "NetworkDriver.Leave", wire.EndpointRequest{}, nil); err != nil {
		t.Fatal(err)
	}
	if got := activations.Load(); got != 2 {
		t.Errorf("%d activations, want one for each start", got)
	}
	if line.Heard("something") {
		t.Error("the new process passes for having been told what the old one was")
	}
	select {
	case <-up:
	case <-time.After(20 * time.Second):
		t.Error("nobody was told that it was started again")
	}
}

// BenchmarkCall measures a call beside the bare exchange that it rests on.
func BenchmarkCall(b *testing.B) {
	dir := b.TempDir()
	socket := filepath.Join(dir, "lab.sock")
	plugintest.Serve(b, socket, plugintest.HTTP{Handler: network(scripted{"NetworkDriver.Leave": says(200, "{}")})})
	message := wire.EndpointRequest{NetworkID: strings.Repeat("a", 64), EndpointID: strings.Repeat("b", 64)}
	d := plugin.NewDirectory(plugin.Options{Sockets: []string{dir}, Specs: []string{}})
	defer d.Close()
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			if err := d.Line("lab").Call(b.Context(), "NetworkDriver.Leave", message, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		client := plugintest.Client(socket)
		for b.Loop() {
			response, err := client.Post("http://plugin/NetworkDriver.Leave", "", strings.NewReader("{}")) //nolint:noctx // a benchmark
			if err != nil {
				b.Fatal(err)
			}
			response.Body.Close() //nolint:errcheck // nothing is lost
		}
	})
}

// A plugin that breaks down over one call is not away: the others are answered.
func TestBreakdownCutsNoLine(t *testing.T) {
	dir := t.TempDir()
	plugintest.Serve(t, filepath.Join(dir, "lab.sock"), plugintest.HTTP{Handler: network(scripted{
		"NetworkDriver.Join": says(0, ""), "NetworkDriver.Leave": says(200, "{}"),
	})})
	d := directory(t, plugin.Options{Sockets: []string{dir}})
	err := d.Line("lab").Call(t.Context(), "NetworkDriver.Join", wire.JoinRequest{}, nil)
	if !plugin.Crashed(err) || !plugin.InDoubt(err) || d.Watch("lab") != nil {
		t.Errorf("after a breakdown: %v, the line: %v", err, d.Watch("lab"))
	}
	if err := d.Line("lab").Call(t.Context(), "NetworkDriver.Leave", wire.EndpointRequest{}, nil); err != nil {
		t.Error(err)
	}
}

// A plugin on another machine shows a certificate, and wants to see ours.
func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	issue := func(name string, usage x509.ExtKeyUsage) (tls.Certificate, string, string) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		files := make(map[string]string)
		for kind, raw := range map[string][]byte{"CERTIFICATE": der, "EC PRIVATE KEY": private} {
			files[kind] = filepath.Join(dir, name+"-"+strings.ReplaceAll(kind, " ", "-")+".pem")
			if err := os.WriteFile(files[kind], pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, files["CERTIFICATE"], files["EC PRIVATE KEY"]
	}
	theirs, theirFile, _ := issue("plugin", x509.ExtKeyUsageServerAuth)
	mine, certFile, keyFile := issue("engine", x509.ExtKeyUsageClientAuth)
	known := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(mine.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	known.AddCert(leaf)
	server := httptest.NewUnstartedServer(network(nil))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{theirs}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: known, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	address := "tcp://" + server.Listener.Addr().String()
	for name, config := range map[string]string{
		"mutual":    fmt.Sprintf(`{"CAFile":%q,"CertFile":%q,"KeyFile":%q}`, theirFile, certFile, keyFile),
		"nameless":  fmt.Sprintf(`{"CAFile":%q}`, theirFile),
		"foreign":   fmt.Sprintf(`{"CAFile":%q,"CertFile":%q,"KeyFile":%q}`, certFile, certFile, keyFile),
		"trusting":  fmt.Sprintf(`{"CAFile":%q,"CertFile":%q,"KeyFile":%q,"InsecureSkipVerify":true}`, certFile, certFile, keyFile),
		"no-folder": `{"CAFile":"/no/such/file.pem"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(fmt.Sprintf(`{"Name":%q,"Addr":%q,"TLSConfig":%s}`, name, address, config)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := directory(t, plugin.Options{Specs: []string{dir}, Patience: 50 * time.Millisecond})
	for name, want := range map[string]string{"mutual": "", "trusting": "", "nameless": "certificate", "foreign": "certificate", "no-folder": "/no/such/file.pem"} {
		err := d.Wake(t.Context(), name, wire.NetworkDriver)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
