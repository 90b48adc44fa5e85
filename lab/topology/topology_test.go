package topology_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab/topology"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// wired is a machine with two containers on a bridge, a cable between two other
// namespaces, and a macvlan on an uplink.
const wired = `
for ns in web db left right; do ip netns add $ns; ip -n $ns link set lo up; done
ip link add br-lab address 02:00:00:00:00:01 type bridge; ip link set br-lab up; ip addr add 10.77.0.1/24 dev br-lab
ip link add vethweb address 02:00:00:00:00:02 master br-lab type veth peer name eth0 address 02:00:00:00:00:03 netns web
ip link add vethdb address 02:00:00:00:00:04 mtu 1400 master br-lab type veth peer name eth0 address 02:00:00:00:00:05 mtu 1400 netns db
ip -n web addr add 10.77.0.2/24 dev eth0; ip -n db addr add 10.77.0.3/24 dev eth0
for l in vethweb vethdb; do ip link set $l up; done
ip -n web link set eth0 up; ip -n db link set eth0 up
ip -n left link add cable address 02:00:00:00:00:06 type veth peer name cable address 02:00:00:00:00:07 netns right
ip link add up0 address 02:00:00:00:00:08 type veth peer name wire address 02:00:00:00:00:09
ip link set up0 up; ip link set wire up
ip link add link up0 name lan0 address 02:00:00:00:00:0a netns db type macvlan mode bridge
nft 'table ip guard { chain forward { type filter hook forward priority 0; policy drop; accept; }; }'`

func gather(t *testing.T) topology.Picture {
	t.Helper()
	m := nstest.New(t)
	m.Sh(t, wired)
	t.Cleanup(func() {
		m.Sh(t, "nft delete table ip guard; ip link del up0; ip link del br-lab; for ns in web db left right; do ip netns del $ns; done")
	})
	picture, err := topology.Gather(m.Host(), topology.Known{
		Owners: map[string]topology.Owner{
			"web": {Container: "shop", Ports: []string{"0.0.0.0:8080->80/tcp"}}, "db": {Container: "db"},
			"left": {}, "right": {}, "gone": {Container: "gone"},
		},
		Networks: map[string]string{"br-lab": "lab"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return picture
}

func TestText(t *testing.T) {
	const want = `host
├─ rules
│  └─ ip guard forward: hook forward, policy drop, 1 rules
├─ lo 127.0.0.1/8 ::1/128
├─ br-lab bridge 10.77.0.1/24 network lab mtu 1400
│  ├─ vethweb ── shop: eth0 10.77.0.2/24  published 0.0.0.0:8080->80/tcp
│  └─ vethdb mtu 1400 ── db: eth0 10.77.0.3/24 mtu 1400
├─ wire ── up0
└─ up0 ── wire ── db: lan0 macvlan DOWN
left
└─ cable DOWN ── right: cable DOWN
right
└─ cable DOWN ── left: cable DOWN
`
	got := gather(t)
	if diff := cmp.Diff(want, topology.Text(got)); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}

func TestCables(t *testing.T) {
	type end = topology.End
	want := []topology.Cable{
		{From: end{"", "up0"}, To: end{"", "wire"}},
		{From: end{"", "up0"}, To: end{"db", "lan0"}},
		{From: end{"", "vethdb"}, To: end{"db", "eth0"}},
		{From: end{"", "vethweb"}, To: end{"web", "eth0"}},
		{From: end{"left", "cable"}, To: end{"right", "cable"}},
	}
	if diff := cmp.Diff(want, gather(t).Cables); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}

func TestFormats(t *testing.T) {
	picture := gather(t)
	text := map[string]string{}
	for _, format := range topology.Formats() {
		var out bytes.Buffer
		if err := topology.Write(&out, format, picture); err != nil {
			t.Fatal(err)
		}
		text[format] = out.String()
	}
	for format, want := range map[string]string{
		"mermaid": "  n_2fvethweb --- nweb_2feth0\n",
		"dot":     "  n_2fvethweb -- nweb_2feth0;\n",
		"svg":     ">vethdb mtu 1400</text>",
	} {
		if !strings.Contains(text[format], want) {
			t.Errorf("%s lacks %q:\n%s", format, want, text[format])
		}
	}
	for format, text := range text {
		if !strings.Contains(text, "ip guard forward: hook forward, policy drop, 1 rules") {
			t.Errorf("%s has no rules:\n%s", format, text)
		}
	}
	decoder := xml.NewDecoder(strings.NewReader(text["svg"]))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the drawing is no XML: %v\n%s", err, text["svg"])
		}
	}
	var back topology.Picture
	if err := json.Unmarshal([]byte(text["json"]), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(topology.Text(picture), topology.Text(back)); diff != "" {
		t.Errorf("JSON does not hold the whole picture:\n%s", diff)
	}
	if err := topology.Write(io.Discard, "oil", picture); err == nil {
		t.Error("a format that there is not was accepted")
	}
}
