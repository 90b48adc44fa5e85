package api

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/runtime/image"
)

// endless is a JSON text that does not come to its end for 100 MB.
func endless() io.Reader {
	return io.MultiReader(strings.NewReader(`{"Name":"`), io.LimitReader(letters{}, 100<<20), strings.NewReader(`"}`))
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

func TestHugeBodies(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	for _, path := range []string{"/networks/create", "/containers/create", "/volumes/create", "/auth", "/commit?container=x", "/linkspan/v1/explain"} {
		r := httptest.NewRequest(http.MethodPost, path, endless())
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = -1
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusRequestEntityTooLarge || message(t, w) == "" {
			t.Errorf("%s: %d %.200s", path, w.Code, w.Body)
		}
	}
}

// Whatever is asked for, the answer is a refusal with a message.
func TestNonsense(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	for request, want := range map[string]int{
		"GET /images/../../etc/passwd/json":                       400,
		"GET /images/%2e%2e%2f%2e%2e%2fetc%2fpasswd/json":         400,
		"GET /images/a:b:c/json":                                  400,
		"GET /images/" + strings.Repeat("a/", 500) + "/json":      400,
		"DELETE /images/..":                                       400,
		"GET /images/get?names=..%2f..%2fx":                       400,
		"GET /images/get":                                         400,
		"GET /images/json?filters=nonsense":                       400,
		"GET /images/json?filters=%7B%22nosuch%22:[%22x%22]%7D":   400,
		"GET /images/json?filters=%7B%22dangling%22:[%22x%22]%7D": 400,
		"GET /images/json?filters=%7B%22since%22:[%22x%22]%7D":    404,
		"GET /images/json?x=%zz":                                  400,
		"POST /images/create":                                     400,
		"POST /images/create?fromImage=UPPER":                     400,
		"POST /images/create?fromImage=x&platform=a/b/c/d":        400,
		"POST /images/create?fromSrc=http://127.0.0.1:1/x":        501,
		"POST /images/create?fromSrc=-&changes=RUN%20x":           400,
		"POST /images/x/tag?repo=UPPER":                           400,
		"POST /images/x/push":                                     404,
		"POST /images/load":                                       400,
		"PUT /images/json":                                        404,
		"PATCH /volumes":                                          404,
		"GET /volumes/../../etc/passwd":                           404,
		"DELETE /volumes/%2e%2e":                                  404,
		"GET /volumes?filters=%7B%22nosuch%22:[%22x%22]%7D":       400,
		"GET /containers/x/archive":                               400,
		"GET /containers/x/archive?path=a%00b":                    400,
		"HEAD /containers/x/archive":                              400,
		"PUT /containers/x/archive":                               400,
		"POST /commit?container=x":                                404,
		"GET /distribution/UPPER/json":                            400,
		"POST /build":                                             501,
	} {
		method, path, _ := strings.Cut(request, " ")
		w := ask(s, method, path, "")
		if w.Code != want || method != "HEAD" && message(t, w) == "" {
			t.Errorf("%s: %d, want %d: %s", request, w.Code, want, w.Body)
		}
	}
	for request, want := range map[string]int{
		`/volumes/create {"Name":"../x"}`:              400,
		`/volumes/create {"Name":"/etc"}`:              400,
		`/volumes/create {"Name":3}`:                   400,
		`/volumes/create {`:                            400,
		`/volumes/create {"Driver":"nosuch"}`:          404,
		`/volumes/create {"ClusterVolumeSpec":{}}`:     501,
		`/auth {"username":{}}`:                        400,
		`/auth {"serveraddress":"bad host/"}`:          400,
		`/auth {"serveraddress":"http://127.0.0.1:1"}`: 503,
	} {
		path, body, _ := strings.Cut(request, " ")
		if w := ask(s, "POST", path, body); w.Code != want || message(t, w) == "" {
			t.Errorf("%s: %d, want %d: %s", request, w.Code, want, w.Body)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/images/x/push", nil)
	r.Header.Set("X-Registry-Auth", "nonsense")
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, r); w.Code != 400 || message(t, w) == "" {
		t.Error(w.Code, w.Body)
	}
}

// listened serves a Server on loopback.
func listened(t *testing.T, s *Server) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// large is an archive of n bytes in one file.
func large(t *testing.T, n int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	must(t, w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: n}))
	if _, err := io.CopyN(w, letters{}, n); err != nil {
		t.Fatal(err)
	}
	must(t, w.Close())
	return out.Bytes()
}

// A client that goes in the middle of an import leaves nothing behind.
func TestImportOfAClientThatGoes(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	store, ok := s.images.(*image.Store)
	if !ok {
		t.Fatal("no image store")
	}
	for _, path := range []string{"/images/create?fromSrc=-&repo=half", "/images/load"} {
		conn, err := net.Dial("tcp", listened(t, s)) //nolint:noctx // a test's own server
		must(t, err)
		archive := large(t, 1<<20)
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n", path, len(archive))
		must(t, err)
		_, err = conn.Write(archive[:len(archive)/2])
		must(t, err)
		must(t, conn.Close())
		if !nstest.Until(20*time.Second, func() bool { return emptyDir(t, store.Temporary()) }) {
			t.Errorf("%s: something is left in %s", path, store.Temporary())
		}
	}
	if list := store.List(); len(list) > 0 {
		t.Error(list)
	}
}

func emptyDir(t *testing.T, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(filepath.Clean(dir))
	must(t, err)
	return len(entries) == 0
}

// A client that has stopped reading is dropped, and holds nothing any more.
func TestSaveForAClientThatDoesNotRead(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	s.patience = 100 * time.Millisecond
	made, err := s.images.Import(bytes.NewReader(large(t, 64<<20)), image.ImportOptions{Name: "big"})
	must(t, err)
	conn, err := net.Dial("tcp", listened(t, s)) //nolint:noctx // a test's own server
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, "GET /images/get?names=big HTTP/1.1\r\nHost: d\r\n\r\n")
	must(t, err)
	first := make([]byte, 1)
	if _, err := io.ReadFull(conn, first); err != nil { // the answer has begun
		t.Fatal(err)
	}
	if !nstest.Until(20*time.Second, func() bool { _, err := s.images.Remove(string(made.ID), true); return err == nil }) {
		t.Error("the image is still held for a client that does not read")
	}
}
