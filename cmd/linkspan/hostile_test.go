package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// rushScript asks a thousand times a second, by turns at the addresses that it
// is given, and writes ten times a second how often whom was seen where, and how
// often there was no answer.
const rushScript = `
import asyncio, collections, sys, time
port, out, addresses = sys.argv[1], sys.argv[2], sys.argv[3:]
counts = collections.Counter()
async def ask(address):
    try:
        async with asyncio.timeout(2):
            r, w = await asyncio.open_connection(address, int(port))
            seen = (await r.read(100)).decode()
            w.close()
    except (OSError, TimeoutError): seen = ""
    counts[address + " " + (seen or "-")] += 1
async def report():
    while True:
        with open(out + ".new", "w") as f:
            for key, n in counts.items(): f.write("%s %d\n" % (key, n))
        import os; os.rename(out + ".new", out)
        await asyncio.sleep(0.1)
async def main():
    asyncio.create_task(report())
    began, asked, under = time.monotonic(), 0, set()
    while True:
        while asked < (time.monotonic() - began) * 1000:
            asked += 1
            if len(under) < 500:
                t = asyncio.create_task(ask(addresses[asked % len(addresses)]))
                under.add(t); t.add_done_callback(under.discard)
        await asyncio.sleep(0.002)
asyncio.run(main())
`

// answerScript answers every connection on a port with who asks.
const answerScript = `
import asyncio, sys
async def serve(r, w):
    w.write(w.get_extra_info("peername")[0].replace("::ffff:", "").encode()); w.close()
async def main():
    await asyncio.start_server(serve, ["0.0.0.0", "::"], int(sys.argv[1]), backlog=1000)
    await asyncio.sleep(1e6)
asyncio.run(main())
`

// rush is a neighbour's load on a published port.
type rush struct {
	*story
	lan *nstest.Machine
	out string
}

// true4 and true6 are whom the server sees if all is well.
const (
	true4 = "192.0.2.1 192.0.2.2"
	true6 = "2001:db8::1 2001:db8::2"
)

func (r rush) counts() map[string]int {
	counts := make(map[string]int)
	text, _ := os.ReadFile(r.out)
	for line := range strings.Lines(string(text)) {
		var address, seen string
		var n int
		if _, err := fmt.Sscan(line, &address, &seen, &n); err == nil {
			counts[address+" "+seen] = n
		}
	}
	return counts
}

// comesBack waits until the server sees many a true asker, over both families,
// and tells what happened until then.
func (r rush) comesBack(what string) {
	r.t.Helper()
	began, before := time.Now(), r.counts()
	const many = 300 // more than can have been on their way
	if !nstest.Until(longEnough, func() bool {
		now := r.counts()
		return now[true4] > before[true4]+many && now[true6] > before[true6]+many
	}) {
		r.t.Fatalf("%s: the traffic does not come back:\n%v\n%v", what, before, r.counts())
	}
	took, lost := time.Since(began), []string{}
	for key, n := range r.counts() {
		if key != true4 && key != true6 && n > before[key] {
			lost = append(lost, fmt.Sprintf("%d of %s", n-before[key], key))
		}
	}
	r.t.Logf("%s: %d true answers over each family after %v; others: %s", what, many, took.Round(time.Millisecond), strings.Join(lost, ", "))
}

// TestHostileFirewall is scenario 4.
func TestHostileFirewall(t *testing.T) {
	const ours4, ours6 = "iptables-save | grep -v 'LINKSPAN-[^U]' | iptables-restore", "ip6tables-save | grep -v 'LINKSPAN-[^U]' | ip6tables-restore"
	for _, c := range []struct{ backend, mine, list, own string }{
		{"nftables", "nft add rule inet linkspan-user forward ip saddr 198.51.100.1 drop", "nft list chain inet linkspan-user forward", "nft delete table inet linkspan"},
		{"iptables", "iptables -A LINKSPAN-USER -s 198.51.100.1 -j DROP", "iptables -S LINKSPAN-USER", ours4 + "; " + ours6},
	} {
		t.Run(c.backend, func(t *testing.T) {
			r := newRush(t, c.backend)
			foreign := func() string { return r.machine.Sh(t, "nft -j list table inet theirs") }
			const theirs = "nft 'table inet theirs { set good { type ipv4_addr; elements = { 203.0.113.7 }; }; chain in { type filter hook input priority 5; ip saddr @good accept; }; }'"
			survives := func(what, before string) {
				t.Helper()
				if after := foreign(); after != before {
					t.Errorf("%s: what is not ours was\n%s\nand is\n%s", what, before, after)
				}
				if out := r.machine.Sh(t, c.list); !strings.Contains(out, "198.51.100.1") {
					t.Errorf("%s: the user's own rule is gone:\n%s", what, out)
				}
			}
			r.machine.Sh(t, c.mine+"; "+theirs)
			r.comesBack("at first")

			r.machine.Sh(t, "nft flush ruleset")
			r.comesBack("after nft flush ruleset")
			if tables := r.machine.Sh(t, "nft list tables"); strings.Contains(tables, "theirs") {
				t.Errorf("after nft flush ruleset somebody made:\n%s", tables)
			}
			r.machine.Sh(t, c.mine+"; "+theirs) // whoever flushes all rules flushes these too
			before := foreign()

			r.machine.Sh(t, c.own)
			r.comesBack("after the loss of our rules")
			survives("after the loss of our rules", before)
			if said := r.do("firewall", "reapply"); said != "nothing was missing" {
				t.Errorf("there was more to mend: %s", said)
			}
			survives("after firewall reapply", before)

			r.machine.Sh(t, "nft 'table inet strict { chain pass { type filter hook forward priority 0; policy drop; }; }'")
			said, _ := r.try("doctor")
			if !strings.Contains(said, "foreign-drop-policy") || !strings.Contains(said, "chain pass of table inet strict") {
				t.Errorf("the doctor does not name the foreign policy:\n%s", said)
			}
			bridge := "br-" + r.do("network", "inspect", "-f", "{{.Id}}", "lab")[:12]
			for _, remedy := range []string{"nft insert rule inet strict pass iifname BRIDGE accept", "nft insert rule inet strict pass oifname BRIDGE accept"} {
				if !strings.Contains(said, remedy) {
					t.Errorf("the doctor does not name the remedy %q:\n%s", remedy, said)
				}
				r.machine.Sh(t, strings.ReplaceAll(remedy, "BRIDGE", bridge))
			}
			r.comesBack("after the doctor's remedy for a foreign policy")
			survives("with a foreign policy", before)
			r.machine.Sh(t, "nft delete table inet strict")

			r.machine.Sh(t, "iptables -F; ip6tables -F")
			r.comesBack("after iptables -F")
			if c.backend == "iptables" {
				r.machine.Sh(t, c.mine) // it was in what was flushed
			}
			survives("after iptables -F", before)

			// A daemon that is started again, or with the other backend, touches it no more than that.
			r.end(os.Interrupt)
			r.start("--firewall-backend", map[string]string{"nftables": "iptables", "iptables": "nftables"}[c.backend])
			r.comesBack("with the other backend")
			survives("with the other backend", before)
			r.end(os.Kill)
			r.start("--firewall-backend", c.backend)
			r.comesBack("with this backend again")
			survives("with this backend again", before)
			r.leave()
			survives("after --uninstall", before)
		})
	}
}

func newRush(t *testing.T, backend string) rush {
	s := newStory(t)
	r := rush{story: s, lan: nstest.New(t), out: filepath.Join(s.dir, "rush")}
	wire := nstest.Wire(t, s.machine, r.lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	s.machine.Sh(t, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; ip addr add 2001:db8::1/64 nodad dev "+wire)
	r.lan.Sh(t, "ip addr add 2001:db8::2/64 nodad dev "+wire)
	s.start("--firewall-backend", backend)
	s.do("network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "-p", "8080:80", "--rootfs", "/", "--", "python3", "-c", answerScript, "80")
	if err := os.WriteFile(r.out+".py", []byte(rushScript), 0o600); err != nil {
		t.Fatal(err)
	}
	r.lan.Start(t, fmt.Sprintf("ulimit -n 4096; exec python3 %s.py 8080 %s 192.0.2.1 2001:db8::1", r.out, r.out))
	return r
}
