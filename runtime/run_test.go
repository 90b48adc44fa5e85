package runtime

import (
	"strings"
	"testing"
)

func TestExitCodes(t *testing.T) {
	b := open(t)
	tests := []struct {
		script string
		want   int
	}{
		{"true", 0},
		{"exit 1", 1},
		{"exit 125", 125},
		{"exit 255", 255},
		{"sh -c 'kill -TERM $$'", 143},
		{"kill -TERM $$; exit 7", 7}, // the kernel shields PID 1 from its own signals
		{"sh -c 'kill -SEGV $$'", 139},
	}
	for _, test := range tests {
		state, _, _ := b.finished(t, test.script)
		if state.ExitCode != test.want {
			t.Errorf("%s: exit code %d, want %d", test.script, state.ExitCode, test.want)
		}
	}
}

func TestOutput(t *testing.T) {
	b := open(t)
	_, stdout, stderr := b.finished(t, "echo out; echo err >&2; printf 'no newline'")
	if stdout != "out\nno newline" || stderr != "err\n" {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
	_, stdout, _ = b.finished(t, "head -c 100000 /dev/zero | tr '\\0' x")
	if stdout != strings.Repeat("x", 100000) {
		t.Errorf("a line of 100000 bytes came as %d", len(stdout))
	}
}
