package capture_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab/capture"
)

func TestMain(m *testing.M) { nstest.Main(m) }

const pair = `
ip netns add web; ip netns add db
ip -n web link add eth0 address 02:00:00:00:00:01 type veth peer name eth0 address 02:00:00:00:00:02 netns db
for ns in web db; do ip netns exec $ns sysctl -qw net.ipv6.conf.all.disable_ipv6=1; ip -n $ns link set eth0 up; done
ip -n web addr add 10.0.0.1/24 dev eth0; ip -n db addr add 10.0.0.2/24 dev eth0`

func listen(t *testing.T) (*nstest.Machine, []capture.Target, *capture.Session) {
	t.Helper()
	m := nstest.New(t)
	m.Sh(t, pair)
	t.Cleanup(func() { m.Sh(t, "ip netns del web; ip netns del db") })
	targets := []capture.Target{{Namespace: "web", Link: "eth0", Title: "web eth0"}, {Namespace: "db", Link: "eth0", Title: "db eth0"}}
	session, err := capture.Open(m.Host(), targets, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m, targets, session
}

func TestLive(t *testing.T) {
	m, targets, session := listen(t)
	m.Sh(t, "ip netns exec web ping -c1 -W5 10.0.0.2")
	var out strings.Builder
	names := capture.Names{"02:00:00:00:00:01": "web", "02:00:00:00:00:02": "db", "10.0.0.1": "web", "10.0.0.2": "db"}
	// Four frames pass the cable, and each of its ends sees all of them.
	if err := session.Run(t.Context(), 8, capture.Live(&out, targets, names)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"  web eth0  web > all  ARP who has 10.0.0.2? tell 10.0.0.1  42 bytes\n",
		"  db eth0  db > web  ARP 10.0.0.2 is at 02:00:00:00:00:02  42 bytes\n",
		"  web eth0  web > db  ICMPv4 EchoRequest  98 bytes\n",
		"  db eth0  db > web  ICMPv4 EchoReply  98 bytes\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line %q in:\n%s", want, out.String())
		}
	}
}

func TestFileNamesItsInterfaces(t *testing.T) {
	m, targets, session := listen(t)
	m.Sh(t, "ip netns exec web ping -c1 -W5 10.0.0.2")
	path := filepath.Join(t.TempDir(), "a.pcapng")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	file, err := capture.NewFile(out, targets, capture.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Run(t.Context(), 8, file.Write); err != nil {
		t.Fatal(err)
	}
	if err := file.Finish([]capture.Count{{Seen: 4, Dropped: 2}, {Seen: 4}}); err != nil {
		t.Fatal(err)
	}
	seen := readBack(t, path)
	if seen["web eth0"] != 4 || seen["db eth0"] != 4 {
		t.Errorf("frames by interface: %v, want 4 on each", seen)
	}
	// Another reader: tcpdump knows no names of interfaces, but each frame.
	printed := m.Sh(t, "tcpdump -nr "+path+" icmp 2>/dev/null")
	if strings.Count(printed, "ICMP echo re") != 4 {
		t.Errorf("tcpdump reads:\n%s", printed)
	}
}

// readBack walks the blocks of a file (draft-ietf-opsawg-pcapng-03, section 3.1)
// with nothing of the library that wrote them, and counts the frames of each
// interface by name. The last block must be whole.
func readBack(t *testing.T, path string) map[string]int {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	number := binary.LittleEndian.Uint32
	var names []string
	seen := map[string]int{}
	for len(raw) > 0 {
		if len(raw) < 12 || int(number(raw[4:])) > len(raw) || number(raw[number(raw[4:])-4:]) != number(raw[4:]) {
			t.Fatalf("half a block at the end: % x", raw)
		}
		kind, body := number(raw), raw[8:number(raw[4:])-4]
		raw = raw[number(raw[4:]):]
		switch kind {
		case 1: // interface description: link type, snap length, options
			for options := body[8:]; len(options) >= 4; {
				code, length := binary.LittleEndian.Uint16(options), int(binary.LittleEndian.Uint16(options[2:]))
				if code == 2 {
					names = append(names, string(options[4:4+length]))
				}
				options = options[min(len(options), 4+(length+3)/4*4):]
			}
		case 6: // enhanced packet
			seen[names[number(body)]]++
		}
	}
	return seen
}

// TestSnapLength keeps the beginning of a frame, and its length.
func TestSnapLength(t *testing.T) {
	m, targets, whole := listen(t)
	defer whole.Close()
	session, err := capture.Open(m.Host(), targets[:1], capture.Options{SnapLength: 20})
	if err != nil {
		t.Fatal(err)
	}
	m.Sh(t, "ip netns exec web ping -c1 -W5 10.0.0.2")
	err = session.Run(t.Context(), 4, func(f capture.Frame) error {
		if len(f.Data) != 20 || f.Info.CaptureLength != 20 || f.Info.Length < 42 {
			t.Errorf("%d bytes of %d were kept: %+v", len(f.Data), f.Info.Length, f.Info)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOnlyTheLink: frames of another link of the namespace, or of a link of the same
// name elsewhere, are not taken for the target's, not even while sockets are opened.
func TestOnlyTheLink(t *testing.T) {
	m, targets, session := listen(t)
	session.Close()
	m.Sh(t, `ip link add eth0 type veth peer name eth9 netns web; ip link set eth0 up; ip -n web link set eth9 up
ip -n web addr add 10.9.0.1/24 dev eth9; ip addr add 10.9.0.2/24 dev eth0`)
	defer m.Sh(t, "ip link del eth0")
	stop := m.Start(t, "ip netns exec web ping -f -i 0.002 10.9.0.2")
	defer stop()
	if out, err := m.TrySh("ip netns exec web ping -c1 -W5 10.9.0.2"); err != nil {
		t.Fatal(out)
	}
	for range 20 {
		session, err := capture.Open(m.Host(), targets[:1], capture.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err = session.Run(ctx, 0, func(f capture.Frame) error {
			t.Errorf("on a quiet link: %s", capture.Names{}.Describe(f.Data))
			return nil
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestGone: a link that is removed, or whose namespace is, ends its part of the
// capture with words; one that is down for a while does not.
func TestGone(t *testing.T) {
	for _, test := range []struct{ name, way string }{
		{"link", "ip -n web link del eth0"},
		{"namespaces", "ip netns del web; ip netns del db; ip netns add web; ip netns add db"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, pair)
			defer m.Sh(t, "ip netns del web; ip netns del db")
			targets := []capture.Target{{Namespace: "web", Link: "eth0", Title: "web eth0"}, {Namespace: "db", Link: "eth0", Title: "db eth0"}}
			gone := make(chan string, 2)
			session, err := capture.Open(m.Host(), targets, capture.Options{Gone: func(t capture.Target) { gone <- t.Title }})
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			seen := make(chan struct{}, 1000)
			go func() {
				ended <- session.Run(context.Background(), 0, func(capture.Frame) error {
					seen <- struct{}{}
					return nil
				})
			}()
			m.Sh(t, "ip -n web link set eth0 down; ip -n web link set eth0 up; ip netns exec web ping -c1 -W5 10.0.0.2")
			for range 8 {
				<-seen
			}
			m.Sh(t, test.way)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if a, b := <-gone, <-gone; a == b {
				t.Errorf("%s is gone twice", a)
			}
		})
	}
}

// TestDrops overfills a queue that nobody empties.
func TestDrops(t *testing.T) {
	m, _, session := listen(t)
	stuck, begun := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- session.Run(ctx, 0, func(capture.Frame) error {
			begin()
			<-stuck
			return nil
		})
	}()
	m.Sh(t, "ip netns exec web python3 -c \"import socket\ns=socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor i in range(30000): s.sendto(b'x'*1400, ('10.0.0.2', 9))\"")
	<-begun
	cancel()
	close(stuck)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	seen := uint64(0)
	for i, count := range session.Counts() {
		if seen += count.Seen; count.Dropped == 0 {
			t.Errorf("target %d: %+v of 30,000 frames that nobody took", i, count)
		}
	}
	if seen == 0 {
		t.Errorf("nothing was seen: %+v", session.Counts())
	}
}

func TestStops(t *testing.T) {
	_, _, session := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := session.Run(ctx, 0, func(capture.Frame) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestFullDisk(t *testing.T) {
	m, _, session := listen(t)
	m.Sh(t, "ip netns exec web ping -c1 -W5 10.0.0.2")
	broken := errors.New("disk full")
	if err := session.Run(t.Context(), 0, func(capture.Frame) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("the sink's error is lost: %v", err)
	}
}

func TestNoSuchLink(t *testing.T) {
	m := nstest.New(t)
	_, err := capture.Open(m.Host(), []capture.Target{{Link: "nope", Title: "nope"}}, capture.Options{})
	if err == nil || !strings.Contains(err.Error(), "listening to nope") {
		t.Errorf("err = %v", err)
	}
}

func TestDescribesRubbish(t *testing.T) {
	if got := (capture.Names{}).Describe([]byte{1, 2, 3}); got != "a frame without an Ethernet header" {
		t.Error(got)
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if text := (capture.Names{}).Describe(frame); text == "" || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("a frame became %q: it must be one line that no terminal obeys", text)
		}
	})
}
