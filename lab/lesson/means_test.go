package lesson

import "testing"

// ownResolver is a program of the learner's own, in place of dnsmasq.
const ownResolver = `cat > "$TMPDIR/resolver.py" <<'EOF'
import os, socket, socketserver, struct, sys, threading
name, address, upstream = sys.argv[1:]
wire = b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"
def answer(query):
	head, question = query[:2], query[12:]
	if not question.startswith(wire):
		s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		s.settimeout(1)
		s.sendto(query, (upstream, 53))
		return s.recv(1500)
	question = question[:len(wire) + 4]
	record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(address)
	known = question[len(wire):len(wire) + 2] == b"\0\1"
	return head + struct.pack(">HHHHH", 0x8580, 1, known, 0, 0) + question + record * known
class UDP(socketserver.BaseRequestHandler):
	def handle(self): self.request[1].sendto(answer(self.request[0]), self.client_address)
class TCP(socketserver.StreamRequestHandler):
	def handle(self):
		said = answer(self.rfile.read(struct.unpack(">H", self.rfile.read(2))[0]))
		self.wfile.write(struct.pack(">H", len(said)) + said)
socketserver.ThreadingTCPServer.allow_reuse_address = True
udp = socketserver.ThreadingUDPServer(("127.0.0.11", 53), UDP)
tcp = socketserver.ThreadingTCPServer(("127.0.0.11", 53), TCP)
if os.fork():
	os._exit(0)
threading.Thread(target=tcp.serve_forever).start()
udp.serve_forever()
EOF
ip netns exec {LAB}-{A} python3 "$TMPDIR/resolver.py" {B}.lan "$(ip -n {LAB}-{B} -4 -br addr show eth0 | awk '{sub("/.*", "", $3); print $3}')" {NET}.3 </dev/null >/dev/null 2>&1`

// otherMeans solve each task of a lesson, and each fault, by means that its own
// solution does not use.
func otherMeans() map[string][]string {
	return map[string][]string{
		"namespace": {
			"touch /run/netns/{LAB}-{A}; unshare --net=/run/netns/{LAB}-{A} ip link set lo up",
			"", "",
			"nsenter --net=/run/netns/{LAB}-{A} ip link set lo up",
			"ip -n {LAB}-{A} link set lo down; ip -n {LAB}-{A} link set lo up",
		},
		"cable": {
			`ip link add left type veth peer name right
ip link set left netns {LAB}-{A} name eth0; ip link set right netns {LAB}-{B} name eth0
for n in {A}/1 {B}/2; do ip -n {LAB}-${n%/*} addr add {NET}.${n#*/}/24 dev eth0; ip -n {LAB}-${n%/*} link set eth0 up; done`,
			"",
			"nsenter --net=/run/netns/{LAB}-{B} ip link set eth0 up",
			"ip -n {LAB}-{A} link set eth0 address 02:00:00:00:00:08; for n in {A} {B}; do ip -n {LAB}-$n neigh flush all; done",
		},
		"switch": {
			`brctl addbr br0; ip link set br0 up
i=0; for n in {A} {B} {C}; do i=$((i+1))
	ip -n {LAB}-$n link add eth0 type veth peer name p$i netns {LAB}
	ip -n {LAB}-$n addr add {NET}.$i/24 dev eth0; ip -n {LAB}-$n link set eth0 up; ip link set p$i up; brctl addif br0 p$i
done`,
			"", "",
			"ip link set p{I} master br0",
			"brctl delif br0 p{I}; brctl addif br0 p{I}",
			"nft add rule inet guard forward accept; if nft list table bridge guard >/dev/null 2>&1; then nft add rule bridge guard forward accept; fi",
		},
		"door": {
			"ip addr add {NET}.254/24 dev br0; for n in {A} {B}; do ip -n {LAB}-$n route add {FAR}.0/24 via {NET}.254; done",
			"",
			"ip addr flush dev br0; ip addr add {NET}.254/24 dev br0",
			"ip -n {LAB}-{B} route add {FAR}.1/32 via {NET}.254",
		},
		"out": {
			"echo 1 > /proc/sys/net/ipv4/ip_forward; iptables -t nat -A POSTROUTING -s {NET}.0/24 -o br1 -j MASQUERADE",
			"",
			"echo 1 > /proc/sys/net/ipv4/ip_forward",
			"nft delete table inet guard",
		},
		"in": {
			"echo 1 > /proc/sys/net/ipv4/ip_forward; iptables -t nat -A PREROUTING -d {FAR}.254 -p tcp --dport {PORT} -j DNAT --to-destination {NET}.1:80",
			"",
			"iptables -t nat -A POSTROUTING -s {NET}.1 -d {NET}.1 -j MASQUERADE; bridge link set dev port0 hairpin on",
			"nft insert rule ip wide pre ip daddr != {FAR}.254 return",
			"ip -n {LAB}-{A} route add {FAR}.0/24 via {NET}.254",
		},
		"names": {
			ownResolver,
			"",
			stop + ownResolver,
			"ip -n {LAB}-{B} addr add {NET}.2/24 dev eth0",
			"ip netns exec {LAB}-{A} nft flush table ip sleeper",
		},
		"addresses": {
			"ip -n {LAB}-{C} addr add {NET}.6/29 dev eth0",
			"",
			"ip -n {LAB}-{C} addr del {NET}.2/29 dev eth0; ip -n {LAB}-{C} addr add {NET}.5/29 dev eth0; for n in {A} {B} {C}; do ip -n {LAB}-$n neigh flush all; done",
			"ip -n {LAB}-{A} route add {NET}.2/32 dev eth0",
		},
	}
}

// TestOtherMeans goes through every lesson a second way: a check looks at what
// there is, not at how it came to be.
func TestOtherMeans(t *testing.T) {
	for _, l := range Lessons() {
		t.Run(l.Name, func(t *testing.T) {
			const seed = "other"
			_, c := course(t)
			t.Setenv("TMPDIR", t.TempDir())
			p, err := c.Start(t.Context(), l.Name, seed)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := c.Stop(t.Context(), l.Name); err != nil {
					t.Error(err)
				}
			}()
			means := map[string]string{}
			for i, task := range append(l.tasks, l.faults...) {
				means[task.text] = otherMeans()[l.Name][i]
			}
			for i, task := range l.steps(seed) {
				answer := ""
				if task.kind == predict {
					if answer, err = c.Solution(t.Context(), l.Name); err != nil {
						t.Fatal(err)
					}
				} else {
					if p.Seed.fill(l.Name, means[task.text]) == p.Seed.fill(l.Name, task.solution) {
						t.Errorf("task %d has one way only", i+1)
					}
					byHand(t, c, p, means[task.text])
				}
				if err := c.Check(t.Context(), l.Name, answer); err != nil {
					t.Fatalf("task %d: %v", i+1, err)
				}
				if err := c.Next(t.Context(), l.Name, false); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
