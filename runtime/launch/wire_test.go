package launch

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func wholeSpec() *Spec {
	return &Spec{
		ID: "id", Dir: "/run/x", Log: Log{"/log", 1 << 30, 3, true}, Netns: "/run/netns/x", Lower: []string{"/a", "/b"}, Upper: "/u", Work: "/w", Host: "h", Domain: "d",
		ReadonlyRoot: true, Privileged: true, HostCgroupns: true, ShmSize: 1 << 40, Sysctls: []string{"a=b"}, MaskedPaths: []string{"/m"}, ReadonlyPaths: []string{"/r"},
		HostUts: true, Init: true, NoShm: true, Brief: true, Pid: Share{Host: true}, Ipc: Share{Pid: 77}, Devices: []Device{{"/dev/x", unix.S_IFCHR | 0o660, 10, 200, 1, 2}},
		Mounts:  []Mount{{Source: "/s", Target: "/t", Type: "bind", Flags: unix.MS_RDONLY, Data: "x"}},
		Cgroups: []Cgroup{{Path: "/sys/fs/cgroup/cpu/x", Name: "cpu"}, {Path: "/u", Unified: true}},
		Process: Process{
			Args: []string{"sh", "-c", ""}, Env: []string{"A=ä"}, Dir: "/", User: "u:g", Groups: []string{"1"}, Tty: true, Stdin: true, StdinOnce: true, Rows: 24, Cols: 80,
			Caps: 1<<63 | 1, Seccomp: []byte{1, 2, 3}, NoNewPrivs: true, Rlimits: []Rlimit{{7, 1, 1<<64 - 1}}, OOMAdj: -1000, Umask: 0o22,
		},
		Attached: []Attach{{Session: "s", Stdin: true, Stderr: true}},
	}
}

func TestMessages(t *testing.T) {
	exec := &Exec{ID: "x", Process: wholeSpec().Process, Attached: []Attach{{Stdout: true}}}
	for _, test := range []struct{ in, out message }{
		{wholeSpec(), &Spec{}},
		{&Spec{}, &Spec{}},
		{exec, &Exec{}},
		{&Attach{Session: "s", Stdin: true}, &Attach{}},
		{&Control{Session: "s", A: -1, B: 1 << 40}, &Control{}},
		{&Ack{Offset: 1 << 50}, &Ack{}},
		{&Status{Pid: 1, Code: 255, Text: "why", At: -5}, &Status{}},
	} {
		text := Encode(test.in)
		if err := Decode(text, test.out); err != nil {
			t.Errorf("%T: %v", test.in, err)
		}
		if diff := gocmp.Diff(test.in, test.out); diff != "" {
			t.Errorf("%T: %s", test.in, diff)
		}
	}
	text := Encode(wholeSpec())
	for n := range text {
		if Decode(text[:n], &Spec{}) == nil {
			t.Errorf("the first %d of %d bytes were taken for a message", n, len(text))
		}
	}
	if Decode(append(text, 0), &Spec{}) == nil {
		t.Error("a byte too many was taken for part of the message")
	}
}

// FuzzDecode: what can be decoded at all encodes to the same bytes again, but
// for flags, of which any byte but zero is true.
func FuzzDecode(f *testing.F) {
	f.Add(Encode(wholeSpec()))
	f.Add(Encode(&Spec{}))
	f.Fuzz(func(t *testing.T, text []byte) {
		var once, twice Spec
		if Decode(text, &once) != nil {
			return
		}
		again := Encode(&once)
		if len(again) != len(text) {
			t.Errorf("%d bytes became %d", len(text), len(again))
		}
		if err := Decode(again, &twice); err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(once, twice); diff != "" {
			t.Error(diff)
		}
	})
}

// TestSendFiles sends more descriptors than fit into a message.
func TestSendFiles(t *testing.T) {
	here, fd, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	name := filepath.Join(t.TempDir(), "file")
	if err = os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	fds := make([]int, 2*maxFilesAtOnce+7)
	for i := range fds {
		fds[i] = file
	}
	sent := make(chan error, 1)
	go func() {
		if err := here.SendFiles(fds); err != nil {
			sent <- err
			return
		}
		sent <- here.Send(ReqWait, []byte("payload"))
	}()
	kind, payload, err := there.Receive()
	if err != nil || kind != ReqWait || string(payload) != "payload" {
		t.Fatalf("%c %q %v", kind, payload, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	got := there.TakeFiles()
	for _, fd := range got {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d would be inherited", fd)
		}
		unix.Close(fd)
	}
	if len(got) != len(fds) || len(there.TakeFiles()) != 0 {
		t.Errorf("%d descriptors of %d", len(got), len(fds))
	}
}

func TestReceiveRefuses(t *testing.T) {
	here, fd, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := NewConn(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if _, err := here.Write([]byte{byte(ReqWait), 0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := there.Receive(); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a frame of 4 GiB: %v", err)
	}
}

// FuzzAppendJSON compares the escaping with that of encoding/json.
func FuzzAppendJSON(f *testing.F) {
	for _, seed := range []string{"", "plain", "\x00\x1f\"\\/<>&\r\n\t\b\f", "\u2028\u2029ä€😀", "\xff\xc3", "\x7f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ours := append(append([]byte{'"'}, appendJSON(nil, []byte(text))...), '"')
		var back string
		if err := json.Unmarshal(ours, &back); err != nil {
			t.Fatalf("%q: %v", ours, err)
		}
		if want := strings.ToValidUTF8(text, "\ufffd"); utf8.ValidString(text) && back != want {
			t.Errorf("%q came back as %q", text, back)
		}
		theirs, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var want string
		if err := json.Unmarshal(theirs, &want); err != nil {
			t.Fatal(err)
		}
		if back != want {
			t.Errorf("%q means %q, that of encoding/json %q", ours, back, want)
		}
	})
}

// FuzzLog: whatever the pieces in which output arrives, the log's lines put
// together are the output, and only long lines and the last are without an end.
func FuzzLog(f *testing.F) {
	f.Add([]byte("a\nb\n\nc"), uint16(1))
	f.Add(bytes.Repeat([]byte("x"), 2*longestLine+3), uint16(1000))
	f.Fuzz(func(t *testing.T, output []byte, step uint16) {
		output = bytes.ToValidUTF8(output, nil)
		if !onlyASCII(output) {
			return // a long line may be cut within a character
		}
		l, err := openLog(Log{Path: filepath.Join(t.TempDir(), "log")})
		if err != nil {
			t.Fatal(err)
		}
		defer l.file.Close()
		for rest := output; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			l.write(streamOut, rest[:n])
			rest = rest[n:]
		}
		l.end(streamOut)
		text, err := os.ReadFile(l.file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(text)) != l.size {
			t.Errorf("size %d, counted %d", len(text), l.size)
		}
		var whole []byte
		for line := range bytes.Lines(text) {
			var entry struct{ Log, Stream, Time string }
			if err := json.Unmarshal(line, &entry); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			whole = append(whole, entry.Log...)
			if !strings.HasSuffix(entry.Log, "\n") && len(entry.Log) < longestLine && len(whole) != len(output) {
				t.Errorf("line %q has no end", entry.Log)
			}
		}
		if !bytes.Equal(whole, output) {
			t.Errorf("logged %q of %q", whole, output)
		}
	})
}

func onlyASCII(p []byte) bool {
	for _, b := range p {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func TestEscapeOverlay(t *testing.T) {
	if got := escapeOverlay(`/a:b,c\d`); got != `/a\:b\,c\\d` {
		t.Error(got)
	}
}
