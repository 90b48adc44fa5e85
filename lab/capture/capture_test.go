package capture_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"

	"github.com/gopacket/gopacket/pcapgo"

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
	session, err := capture.Open(m.Host(), targets)
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
	var file bytes.Buffer
	sink, err := capture.PCAPNG(&file, targets)
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Run(t.Context(), 8, sink); err != nil {
		t.Fatal(err)
	}
	reader, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for {
		_, info, err := reader.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		face, err := reader.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		seen[face.Name]++
	}
	if seen["web eth0"] != 4 || seen["db eth0"] != 4 {
		t.Errorf("frames by interface: %v, want 4 on each", seen)
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
	_, err := capture.Open(m.Host(), []capture.Target{{Link: "nope", Title: "nope"}})
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
