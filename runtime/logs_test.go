package runtime

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzTail compares the reading from the end with counting from the beginning.
func FuzzTail(f *testing.F) {
	f.Add("oeoo", 2, 10)
	f.Add("eeee", 3, 70000)
	f.Add("", 1, 1)
	f.Fuzz(func(t *testing.T, streams string, tail, width int) {
		if tail < 0 || width < 0 || width > 100_000 || len(streams) > 40 {
			return
		}
		var log bytes.Buffer
		var wanted []string
		for i, s := range []byte(streams) {
			line := logLine{Log: fmt.Sprintf("%d%s\n", i, strings.Repeat(".", width*(i%3)/2)), Stream: "stdout", Time: time.Unix(int64(i), 0)}
			if s%2 == 1 {
				line.Stream = "stderr"
			} else {
				wanted = append(wanted, line.Log)
			}
			if err := json.NewEncoder(&log).Encode(line); err != nil {
				t.Fatal(err)
			}
		}
		name := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(name, log.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var out bytes.Buffer
		l := logReader{options: LogOptions{Stdout: true, Tail: tail}, raw: true, w: &out}
		if _, err = l.seek(file); err != nil {
			t.Fatal(err)
		}
		if err = l.copy(t.Context(), bufio.NewReader(file)); err != nil {
			t.Fatal(err)
		}
		if want := strings.Join(wanted[max(len(wanted)-tail, 0):], ""); out.String() != want {
			t.Errorf("tail %d: got %d bytes %.50q, want %d bytes %.50q", tail, out.Len(), out.String(), len(want), want)
		}
	})
}
