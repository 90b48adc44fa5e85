package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
)

func TestVersions(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	for path, want := range map[string]string{
		"/v1.24/networks":        "200",
		"/v1.56/networks":        "200",
		"/networks":              "200",
		"/v1.23/info":            "400 client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
		"/v0.99/info":            "400 client version 0.99 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
		"/v1.23/networks":        "200", // old plugins read it
		"/v1.13.1/networks":      "200",
		"/v1.15/containers/json": "200",
		"/v1.44.1/networks":      "404 page not found",
		"/v1.57/networks":        "400 client version 1.57 is too new. Maximum supported API version is 1.56",
		"/v2.0/networks":         "400 client version 2.0 is too new. Maximum supported API version is 1.56",
		"/vfoo/networks":         "404 page not found",
		"/v1.44/nosuch":          "404 page not found",
		"/v1.44/v1.44/networks":  "404 page not found",
		"/v1.99999999999/_ping":  "400 client version 1.99999999999 is too new. Maximum supported API version is 1.56",
		"/networks/../_ping":     "404 page not found",
		"/networks/a%2Fb":        "404 network a/b not found",
		"/containers/a%2Fb/json": "404 No such container: a/b",
		"/images/a/b/json":       "404 No such image: a/b:latest",
	} {
		w := ask(s, "GET", path, "")
		got := fmt.Sprint(w.Code)
		if w.Code != http.StatusOK {
			got += " " + message(t, w)
		}
		if got != want {
			t.Errorf("GET %s: %s, want %s", path, got, want)
		}
		if v := w.Header().Get("Api-Version"); v != MaxVersion {
			t.Errorf("GET %s: Api-Version %q", path, v)
		}
	}
}

func TestWrongMethods(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	for _, line := range []string{"PUT /networks", "POST /networks", "DELETE /networks", "PATCH /networks/create", "POST /containers/json", "PUT /containers/x/start", "BREW /networks"} {
		method, path, _ := strings.Cut(line, " ")
		if w := ask(s, method, path, ""); w.Code != http.StatusNotFound || message(t, w) != "page not found" {
			t.Errorf("%s: %d %s", line, w.Code, w.Body)
		}
	}
}

func TestPing(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	get, head := ask(s, "GET", "/_ping", ""), ask(s, "HEAD", "/_ping", "")
	if get.Code != 200 || get.Body.String() != "OK" || head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Length") != "0" {
		t.Errorf("GET: %d %q; HEAD: %d %q %v", get.Code, get.Body, head.Code, head.Body, head.Header())
	}
	for name, want := range map[string]string{
		"Api-Version": "1.56", "Ostype": "linux", "Server": "Linkspan/0.1 (linux)", "Builder-Version": "2", "Swarm": "inactive",
		"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache",
	} {
		if got := head.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestBadJSON(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{all: nil})
	huge := `{"Name":"` + strings.Repeat("a", maxBody) + `"}`
	for _, test := range []struct {
		kind, body string
		status     int
		text       string
	}{
		{"application/json", `{bad`, 400, "^invalid JSON: "},
		{"application/json", `{"Name":"x"`, 400, "^invalid JSON: "},
		{"application/json", `"`, 400, "^invalid JSON: "},
		{"application/json", `[1,2]`, 400, "^invalid JSON: "},
		{"application/json", "\xff\xfe", 400, "^invalid JSON: "},
		{"application/json", `  `, 400, "^invalid JSON: got EOF while reading request body$"},
		{"application/json", `{"Name":"x"} trailing`, 400, "^unexpected content after JSON$"},
		{"application/json", `{"Name":"x"}{}`, 400, "^unexpected content after JSON$"},
		{"application/json", strings.Repeat("[", 100000), 400, "^invalid JSON: "},
		{"application/json", huge, 413, "too large"},
		{"text/plain", `{"Name":"x"}`, 400, `^unsupported Content-Type header \(text/plain\): must be 'application/json'$`},
		{"", `{"Name":"x"}`, 400, `^unsupported Content-Type header \(\): must be 'application/json'$`},
		{"application/json; charset=utf-8", ``, 400, "^invalid name: name is empty$"},
	} {
		for _, path := range []string{"/networks/create", "/containers/create", "/networks/lab/connect"} {
			if test.body == "" && path != "/networks/create" {
				continue
			}
			r, err := http.NewRequest("POST", path, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", test.kind)
			w := recorded(s, r)
			if w.Code != test.status || !regexp.MustCompile(test.text).MatchString(message(t, w)) {
				t.Errorf("%s %q %.30q: %d %.100s", path, test.kind, test.body, w.Code, w.Body)
			}
		}
	}
	if w := ask(s, "POST", "/containers/create", ""); w.Code != 400 || message(t, w) != "invalid JSON: EOF" {
		t.Errorf("empty creation: %d %s", w.Code, w.Body)
	}
	if w := ask(s, "POST", "/containers/create", "{}"); w.Code != 400 || message(t, w) != "config cannot be empty in order to create a container" {
		t.Errorf("creation of nothing: %d %s", w.Code, w.Body)
	}
}

func TestStatuses(t *testing.T) {
	for want, err := range map[int]error{
		404: linkspan.Errorf(linkspan.ErrNotFound, "x"), 400: linkspan.Errorf(linkspan.ErrInvalid, "x: %w", linkspan.ErrNotFound),
		409: fmt.Errorf("y: %w", linkspan.Errorf(linkspan.ErrConflict, "x")), 403: errors.Join(linkspan.Errorf(linkspan.ErrForbidden, "x"), errors.New("z")),
		503: linkspan.ErrUnavailable, 501: linkspan.ErrUnsupported, 500: errors.New("x"), 304: linkspan.ErrNotModified,
	} {
		if got := statusOf(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func TestPanicIsAnAnswer(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	w := ask(s.recovered(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oh") })), "GET", "/", "")
	if w.Code != 500 || !strings.Contains(message(t, w), "internal error") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Every route answers something other than 500 and 404 page not found when it
// is asked for a thing that does not exist.
func TestEveryRouteIsServed(t *testing.T) {
	variables := regexp.MustCompile(`\{[^}]*\}`)
	seen := make(map[string]bool)
	for _, route := range Routes() {
		line := route.Method + " " + route.Path
		if seen[line] {
			t.Errorf("%s is there twice", line)
		}
		seen[line] = true
		if route.handle == nil {
			t.Errorf("%s has no handler", line)
		}
	}
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	for _, route := range absentRoutes() {
		w := ask(s, route.Method, variables.ReplaceAllString(route.Path, "x"), "")
		if w.Code == 500 || (w.Code == 404 && strings.Contains(w.Body.String(), "page not found")) {
			t.Errorf("%s %s: %d %s", route.Method, route.Path, w.Code, w.Body)
		}
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "d.sock")
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	listener, err := Listen(t.Context(), "unix://"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info, err)
	}
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	served := make(chan error)
	go func() { served <- s.Serve(listener) }()

	if _, err := Listen(t.Context(), "unix://"+path, nil); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("a second daemon: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}

	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	again, err := Listen(t.Context(), "unix://"+path, nil)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	again.Close()

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for address, kind := range map[string]error{
		"unix://" + file: linkspan.ErrConflict, "tcp://127.0.0.1:2375": linkspan.ErrInvalid, "unix://relative": linkspan.ErrInvalid,
		"fd://": linkspan.ErrInvalid, "unix:///" + strings.Repeat("a", 108): linkspan.ErrInvalid,
	} {
		if _, err := Listen(t.Context(), address, nil); !errors.Is(err, kind) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
		t.Errorf("a file in the way was touched: %q %v", text, err)
	}
}

// A shutdown ends streams without end, and answers what is under way.
func TestShutdownEndsStreams(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	listener, err := Listen(t.Context(), "unix://"+filepath.Join(t.TempDir(), "d.sock"), nil)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(listener) }()
	conn, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the header is not sent at once: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
