package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/runtime"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { nstest.Main(m) }

type record = runtime.Container

func escape(text string) string { return url.QueryEscape(text) }

func recorded(s http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func statusAndMessage(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	return fmt.Sprint(w.Code) + " " + message(t, w)
}

// golden compares a JSON answer with testdata/name.
func golden(t *testing.T, name string, w *httptest.ResponseRecorder) {
	t.Helper()
	var got bytes.Buffer
	if err := json.Indent(&got, w.Body.Bytes(), "", "  "); err != nil {
		t.Fatalf("%s: %d %s: %v", name, w.Code, w.Body, err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
