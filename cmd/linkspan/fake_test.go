package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fake is a daemon that answers from a table and remembers what it was asked.
type fake struct {
	host    string
	answers map[string]answer // by method and path without version and query

	hooks map[string]func() // run when a request comes in, before its answer

	mu    sync.Mutex
	asked []asked
}

// answer is one canned reply. A status of 0 is 200.
type answer struct {
	status int
	body   string
	hijack func(conn net.Conn, client io.Reader) // for streams: the answer is 101
}

type asked struct{ Method, URI, Body string }

func newFake(t *testing.T, answers map[string]answer) *fake {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{host: "unix://" + socket, answers: answers}
	server := &http.Server{Handler: f}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.52")
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/_ping" {
		fmt.Fprint(w, "OK")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	uri := strings.TrimPrefix(r.URL.RequestURI(), "/v1.52")
	f.mu.Lock()
	f.asked = append(f.asked, asked{r.Method, uri, strings.TrimSpace(string(body))})
	f.mu.Unlock()
	plain, _, _ := strings.Cut(uri, "?")
	if hook := f.hooks[r.Method+" "+plain]; hook != nil {
		hook()
	}
	reply, ok := f.answers[r.Method+" "+plain]
	if !ok {
		reply = answer{http.StatusNotFound, `{"message":"page not found"}`, nil}
	}
	if reply.hijack != nil {
		f.hijack(w, reply)
		return
	}
	if reply.status != 0 {
		w.WriteHeader(reply.status)
	}
	fmt.Fprint(w, reply.body)
}

func (f *fake) hijack(w http.ResponseWriter, reply answer) {
	conn, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	reply.hijack(conn, both)
}

// frame writes one piece of output as the API does.
func frame(conn net.Conn, stream byte, text string) {
	head := make([]byte, 8)
	head[0] = stream
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	_, _ = conn.Write(append(head, text...))
}

// requests returns what was asked so far.
func (f *fake) requests() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]asked(nil), f.asked...)
}

// result is what a command left behind.
type result struct {
	out, err string
	code     int
}

// invoke runs a command line against a daemon, with an input and no
// environment but the daemon's address.
func invoke(t *testing.T, host, input string, args ...string) result {
	t.Helper()
	var out, errors bytes.Buffer
	a := &app{in: strings.NewReader(input), out: &out, err: &errors, getenv: func(name string) (string, bool) {
		if name == "LINKSPAN_HOST" {
			return host, true
		}
		return "", false
	}}
	code := a.run(context.WithoutCancel(t.Context()), args)
	return result{out.String(), errors.String(), code}
}

// pick returns a part of a JSON text by the keys that lead to it, in one line.
func pick(t *testing.T, text string, keys ...string) string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("not JSON: %v: %s", err, text)
	}
	for _, key := range keys {
		object, ok := value.(map[string]any)
		if !ok {
			return "null"
		}
		value = object[key]
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}
