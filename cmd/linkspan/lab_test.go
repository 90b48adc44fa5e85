package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan/internal/nstest"
)

// TestSeeing looks at one network with each of the lab's instruments.
func TestSeeing(t *testing.T) {
	s := newStory(t)
	s.start()
	defer s.leave()
	s.do("network", "create", "--subnet", "10.77.0.0/24", "-o", "com.docker.network.bridge.name=br-lab", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "--", "sleep", "1000")

	if out := s.do("brctl", "show", "--who", "br-lab"); !regexp.MustCompile(`(?m)^br-lab\t\t8000\.[0-9a-f]{12}\tno\t\tveth[0-9a-f]{7}\tweb lab 10\.77\.0\.2$`).MatchString(out) {
		t.Errorf("brctl show --who:\n%s", out)
	}
	if out := s.do("explain", "brctl", "stp", "br-lab", "on"); !strings.Contains(out, "ip link set dev br-lab type bridge stp_state 1") {
		t.Errorf("explain brctl stp:\n%s", out)
	}
	if out, err := s.try("brctl", "delbr", "br-lab"); err == nil || !strings.Contains(out, "bridge br-lab") {
		t.Errorf("brctl delbr of a network's bridge: %v\n%s", err, out)
	}
	if out := s.do("topology"); !regexp.MustCompile(`└─ br-lab bridge 10\.77\.0\.1/24 network lab\n   └─ veth[0-9a-f]{7} ── web: eth0 10\.77\.0\.2/24`).MatchString(out) {
		t.Errorf("topology:\n%s", out)
	}
	if out := s.do("topology"); !strings.Contains(out, "\n│  ├─ inet linkspan forward: hook forward, policy accept, ") || !regexp.MustCompile(`web  \(netns linkspan-[0-9a-f]{12}\)\n└─ rules\n   └─ ip linkspan-dns `).MatchString(out) {
		t.Errorf("topology without rules:\n%s", out)
	}
	out := s.do("nsls", "web")
	if !regexp.MustCompile(`^CONTAINER +PID +CGROUP +IPC +NET +MNT +PID +USER +UTS( +TIME)?\n\(here\) +\d+( +\d+){7,8}\nweb +\d+ +\d+ +\d+ +\d+ +\d+ +\d+ += +\d+( +=)?$`).MatchString(out) {
		t.Errorf("nsls:\n%s", out)
	}
	seen := make(chan string)
	go func() {
		out, _ := s.try("capture", "--live", "--count", "4", "web")
		seen <- out
	}()
	// Pings go on until four frames were seen: whoever listens may not be there yet.
	frames := ""
	for waiting := true; waiting; {
		s.do("exec", "web", "ping", "-c1", "-W1", "10.77.0.1")
		select {
		case frames = <-seen:
			waiting = false
		default:
		}
	}
	for _, want := range []string{"listening to web eth0\n", "  web eth0  web > host  ICMPv4 EchoRequest  98 bytes\n", "  web eth0  host > web  ICMPv4 EchoReply  98 bytes\n"} {
		if !strings.Contains(frames, want) {
			t.Errorf("capture shows no %q:\n%s", want, frames)
		}
	}
	if out, err := s.try("capture", "--live", "nobody"); err == nil || !strings.Contains(out, "nobody is no container, endpoint, link or bridge") {
		t.Errorf("capture of nobody: %v\n%s", err, out)
	}
	s.do("kill", "web")
	if out, err := s.try("nsls", "web"); err == nil || !strings.Contains(out, "is not running") {
		t.Errorf("nsls of a container that ended: %v\n%s", err, out)
	}
}

// TestScriptMakesTheSame takes the daemon's word: what it printed of a network
// and the containers on it is run by sh where all that is gone, and the kernel
// must be as it was.
func TestScriptMakesTheSame(t *testing.T) {
	s := newStory(t)
	s.start()
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "--", "sleep", "1000")
	s.do("run", "-d", "--name", "db", "--network", "lab", "--ip", "10.77.0.9", "--rootfs", "/", "--", "sleep", "1000")
	scripts := map[string]string{}
	for _, dialect := range []string{"ip", "brctl"} {
		// The default network is part of the host, but not of this script.
		scripts[dialect] = s.do("script", "--dialect", dialect, "lab") + "\n" + s.do("inspect", "--commands", "--dialect", dialect, "bridge")
	}
	// What a container may do is the launcher's to set, when it starts the process.
	launched := regexp.MustCompile(`(?m)^sysctl net/ipv4/(ip_unprivileged_port_start|ping_group_range) = .*\n`)
	want := launched.ReplaceAllString(s.machine.Dump(t), "")

	history, inBrctl := s.do("history"), s.do("history", "--dialect", "brctl")
	if out := s.do("explain", "--dialect", "brctl", "network", "create", "more"); !regexp.MustCompile(`(?m)^brctl addbr br-[0-9a-f]{12} && ip link set `).MatchString(out) {
		t.Errorf("explain in brctl's words:\n%s", out)
	}
	if out, err := s.try("explain", "--dialect", "latin", "network", "create", "more"); err == nil || !strings.Contains(out, "there are ip, brctl") {
		t.Errorf("explain in a dialect that there is not: %v\n%s", err, out)
	}
	s.leave()
	for dialect, script := range scripts {
		if said := strings.Contains(script, "brctl addif"); said != (dialect == "brctl") {
			t.Errorf("script in dialect %s:\n%s", dialect, script)
		}
		s.machine.Sh(t, script)
		got := s.machine.Dump(t)
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("what the script makes in dialect %s is not what the daemon made (- daemon, + script):\n%s", dialect, diff)
		}
		s.machine.Sh(t, `nft delete table inet linkspan; nft delete table inet linkspan-user; nft delete table bridge linkspan; sysctl -qw net/ipv4/ip_forward=0
for l in $(ip -br link show type bridge | cut -d' ' -f1); do ip link del $l; done
for ns in $(ip netns | cut -d' ' -f1 | grep ^linkspan-); do ip netns del $ns; done`)
	}

	if !strings.Contains(inBrctl, "\nbrctl addbr br-") {
		t.Errorf("history knows no brctl:\n%s", inBrctl)
	}
	if !regexp.MustCompile(`(?m)^# \d\d:\d\d:\d\d\.\d{3} \([\d.]+[mµn]?s\) .*\nip link add name br-`).MatchString(history) {
		t.Errorf("history does not show how the bridge came to be:\n%s", history)
	}
}

// TestHistoryFollows sees an operation while it happens, and its undoing.
func TestHistoryFollows(t *testing.T) {
	s := newStory(t)
	s.start()
	defer s.leave()
	cmd := s.program(t.Context(), "history", "-f")
	var out syncBuffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill() //nolint:errcheck // it has ended by itself
		cmd.Wait()         //nolint:errcheck // killed
	}()
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	s.do("network", "rm", "lab")
	seen := func(pattern string) func() bool {
		return func() bool { return regexp.MustCompile(pattern).MatchString(out.String()) }
	}
	for _, pattern := range []string{`\nip addr add 10\.77\.0\.1/24 brd \+ dev br-`, `undone: .*\n# ip addr add 10\.77\.0\.1/24`} {
		if !nstest.Until(10*time.Second, seen(pattern)) {
			t.Errorf("no line like %s in:\n%s", pattern, out.String())
		}
	}
}

// syncBuffer is a buffer that one goroutine fills and another reads.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestLabFromAFile puts a lab up, uses it, and takes it down, as a student does.
func TestLabFromAFile(t *testing.T) {
	s := newStory(t)
	file := filepath.Join(s.dir, "lan.yaml")
	text := `name: lan
switches: {sw: {}}
nodes:
  a: {addresses: {eth0: [10.0.0.1/24]}}
  b: {addresses: {eth0: [10.0.0.2/24]}, run: exec sleep 1000}
links: [[a:eth0, sw], [b:eth0, sw]]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.do("lab", "up", "--explain", file); !strings.Contains(out, "ip netns add lab-lan\n") || !strings.Contains(out, "address 02:") {
		t.Errorf("lab up --explain:\n%s", out)
	}
	s.do("lab", "up", file)
	s.do("lab", "exec", "lan", "a", "ping", "-c1", "-W5", "10.0.0.2")
	if out, err := s.try("lab", "exec", "lan", "a", "sh", "-c", "exit 7"); err == nil {
		t.Errorf("exit status of a command in a node is lost: %s", out)
	}
	if out := s.do("brctl", "--netns", "lab-lan", "show"); !regexp.MustCompile(`(?m)^sw\t\t8000\.02[0-9a-f]{10}\tno\t\tport0\n\t{7}port1$`).MatchString(out) {
		t.Errorf("brctl show on the lab's machine:\n%s", out)
	}
	s.do("lab", "link", "cut", "lan", "b:eth0")
	if out := s.do("lab", "status"); !regexp.MustCompile(`(?m)^lan +b +lab-lan-b +1 +alive \(\d+\)$`).MatchString(out) || !strings.Contains(out, "lan: changed: link port1 is down") {
		t.Errorf("lab status:\n%s", out)
	}
	s.do("lab", "reset", "lan")
	s.do("lab", "exec", "lan", "a", "ping", "-c1", "-W5", "10.0.0.2")
	s.do("lab", "link", "set", "--rate", "1mbit", "--loss", "100%", "lan", "b:eth0")
	if out := s.do("lab", "status"); !regexp.MustCompile(`(?m)^lan +b:eth0 - sw +up +rate 1mbit, loss 100%`).MatchString(out) {
		t.Errorf("lab status:\n%s", out)
	}
	if out, err := s.try("lab", "exec", "lan", "a", "ping", "-c1", "-W1", "10.0.0.2"); err == nil {
		t.Errorf("a cable that loses everything passes a ping:\n%s", out)
	}
	for _, wrong := range [][]string{{"--loss", "5", "lan", "b:eth0"}, {"lan", "b:eth0"}, {"--rate", "1mbit", "lan", "b:eth1"}} {
		if out, err := s.try(append([]string{"lab", "link", "set"}, wrong...)...); err == nil {
			t.Errorf("lab link set %s:\n%s", wrong, out)
		}
	}
	s.do("lab", "link", "restore", "lan", "b:eth0")
	s.do("lab", "exec", "lan", "a", "ping", "-c1", "-W5", "10.0.0.2")
	s.machine.Sh(t, "ip -n lab-lan-b addr add 10.0.0.22/24 brd + dev eth0; ip -n lab-lan-b link add d0 type bridge")
	saved := filepath.Join(s.dir, "saved.yaml")
	if out := s.do("lab", "save", "-o", saved, "lan"); out != "WARNING: not saved: link d0 of node b, of kind bridge" {
		t.Errorf("lab save:\n%s", out)
	}
	s.do("lab", "down", file)
	s.do("lab", "up", saved)
	s.do("lab", "exec", "lan", "a", "ping", "-c1", "-W5", "10.0.0.22")
	s.do("lab", "down", "lan")
	s.do("lab", "down", "lan")
}

// TestLabUpIsKilled kills the program at twelve moments of a lab's coming up, and
// takes away what is left.
func TestLabUpIsKilled(t *testing.T) {
	s := newStory(t)
	file := filepath.Join(s.dir, "lan.yaml")
	text := `name: lan
switches: {sw: {}}
nodes:
  a: {addresses: {eth0: [10.0.0.1/24]}, start: ["ip link add d0 type bridge"], run: exec sleep 1000}
  b: {addresses: {eth0: [10.0.0.2/24]}, run: exec sleep 1000}
links: [["a:eth0", sw], {ends: ["b:eth0", sw], loss: 1%, rate: 1mbit}]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.machine.Sh(t, "ip link add sw type bridge; ip link set sw up; ip netns add lab-lanx")
	defer s.machine.Sh(t, "ip link del sw; ip netns del lab-lanx")
	before := s.machine.Dump(t)
	start := time.Now()
	s.do("lab", "up", file)
	whole := time.Since(start)
	s.do("lab", "down", "lan")
	for i := range 12 {
		cmd := s.program(t.Context(), "lab", "up", file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(whole * time.Duration(i) / 12)
		cmd.Process.Kill() //nolint:errcheck // it has ended by itself
		cmd.Wait()         //nolint:errcheck // killed, or done
		s.do("lab", "down", file)
		if after := s.machine.Dump(t); after != before {
			t.Fatalf("killed after %d/12 of %v, it left:\n%s", i, whole, nstest.Diff(before, after))
		}
		if out := s.do("lab", "status"); strings.Contains(out, "lan") {
			t.Fatalf("lab status:\n%s", out)
		}
	}
}

// TestLesson is a learner's evening: a task, a hint, half a solution, a whole one,
// a wrong and a right prediction, and the report that the teacher gets.
func TestLesson(t *testing.T) {
	s := newStory(t)
	key := filepath.Join(s.dir, "key")
	s.do("lab", "key", key)
	t.Setenv("LINKSPAN_LAB_KEY", key)
	if out := s.do("lab", "lessons"); !strings.Contains(out, "switch     3. A switch for many cables") {
		t.Errorf("lab lessons:\n%s", out)
	}
	if out := s.do("lab", "start", "--seed", "ada", "namespace"); !strings.Contains(out, "Task 1 of 5 (build): Make a network namespace with the name lab-namespace-") {
		t.Errorf("lab start:\n%s", out)
	}
	if out, err := s.try("lab", "check", "namespace"); err == nil || !strings.Contains(out, "not yet: there is no network namespace lab-namespace-") {
		t.Errorf("lab check of nothing: %v\n%s", err, out)
	}
	s.do("lab", "hint")
	s.machine.Sh(t, s.do("lab", "solution", "namespace"))
	if out := s.do("lab", "check"); !strings.Contains(out, "passed") {
		t.Errorf("lab check:\n%s", out)
	}
	if out := s.do("lab", "next", "namespace"); !strings.Contains(out, "Task 2 of 5 (predict)") {
		t.Errorf("lab next:\n%s", out)
	}
	if out, err := s.try("lab", "check", "7"); err == nil || !strings.Contains(out, "not yet") {
		t.Errorf("a wrong prediction: %v\n%s", err, out)
	}
	s.do("lab", "check", "namespace", "1")
	s.do("lab", "next")
	s.do("lab", "undo")
	result := filepath.Join(s.dir, "ada.json")
	if err := os.WriteFile(result, []byte(s.do("lab", "report")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := s.do("lab", "verify", "--key", key+".pub", "--format", "csv", result); !regexp.MustCompile(`(?m)^namespace,ada,1,build,1,1,true,20\S+$`).MatchString(out) {
		t.Errorf("lab verify:\n%s", out)
	}
	s.machine.Sh(t, `sed -i 's/"Attempts": 1/"Attempts": 0/' `+result)
	if out, err := s.try("lab", "verify", "--key", key+".pub", result); err == nil || !strings.Contains(out, "was changed since it was signed") {
		t.Errorf("lab verify of a result that was edited: %v\n%s", err, out)
	}
	s.do("lab", "stop")
	if out, err := s.try("lab", "task"); err == nil || !strings.Contains(out, "no lesson is under way") {
		t.Errorf("lab task without a lesson: %v\n%s", err, out)
	}
	if out := s.do("lab", "start", "--task", "2", "bridge"); !strings.Contains(out, "Task 2 of 6 (predict)") {
		t.Errorf("lab start --task:\n%s", out)
	}
	// The learner's bridge, and what it lacks.
	out := s.do("lab", "compare", "--netns", "lab-switch", "br0")
	for _, want := range []string{
		`(?m)^bridge br0\n  differs  ip link add name br0 address \S+ mtu 1500 group \d+ type bridge\n +- link br0 lost its mark: `,
		`(?m)^cable p2 into lab-switch-elm\n  same     ip netns add lab-switch-elm$`, `(?m)^  differs  ip -n lab-switch-elm route add default via `,
		`linkspan network create --subnet 10\.\d+\.\d+\.0/24 --gateway 10\.\d+\.\d+\.4 -o com\.docker\.network\.bridge\.name=br0 NAME`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("lab compare has nothing like %s:\n%s", want, out)
		}
	}
	s.do("lab", "stop")
	s.machine.Sh(t, "rm -r /run/linkspan-labs")
}

// TestLabPages runs the commands of docs/labs that are not a lesson's: those are
// run by the tests of lab/lesson.
func TestLabPages(t *testing.T) {
	s := newStory(t)
	s.start()
	defer s.leave()
	s.do("network", "create", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "--", "sleep", "1000")
	self := s.program(t.Context())
	wrapper := fmt.Sprintf("#!/bin/sh\nexec env %s=1 LINKSPAN_HOST=unix://%s/s %s \"$@\"\n", programEnv, s.dir, self.Args[2])
	if err := os.WriteFile(filepath.Join(s.dir, "linkspan"), []byte(wrapper), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	var commands []string
	table := regexp.MustCompile("`(linkspan [^`]+)` \\|$")
	line := regexp.MustCompile(`^    ((linkspan|ip) .*)$`)
	for _, name := range []string{"README.md", "namespaces.md"} {
		page, err := os.ReadFile(filepath.Join("..", "..", "docs", "labs", name))
		if err != nil {
			t.Fatal(err)
		}
		if _, rest, found := strings.Cut(string(page), "```yaml\n"); found {
			text, _, _ := strings.Cut(rest, "```")
			if err := os.WriteFile(filepath.Join(s.dir, "lan.yaml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for text := range strings.Lines(string(page)) {
			for _, pattern := range []*regexp.Regexp{table, line} {
				if found := pattern.FindStringSubmatch(strings.TrimRight(text, "\n")); found != nil {
					commands = append(commands, found[1])
				}
			}
		}
	}
	ran := 0
	for _, command := range commands {
		switch {
		case strings.HasPrefix(command, "linkspan lab start"), strings.HasPrefix(command, "linkspan lab compare"), strings.Contains(command, "|hint|"), command == "linkspan lab stop",
			strings.HasPrefix(command, "linkspan capture"), strings.HasPrefix(command, "linkspan history -f"):
			continue // a lesson's, or without an end
		}
		ran++
		if out, err := s.machine.TrySh(fmt.Sprintf("cd %s; PATH=%s:$PATH\n%s", s.dir, s.dir, command)); err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	if ran < 20 {
		t.Errorf("only %d commands were found in the pages", ran)
	}
}
