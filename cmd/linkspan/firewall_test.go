package main

import (
	"os"
	"strings"
	"testing"
)

// One daemon after the other with another firewall backend: the container goes
// on, its port works, and what others flush comes back.
func TestStoryOfTwoFirewalls(t *testing.T) {
	s := newStory(t)
	s.start("--firewall-backend", "iptables")
	if info := s.do("info"); !strings.Contains(info, "Firewall Backend: iptables") {
		t.Errorf("info does not name the backend:\n%s", info)
	}
	s.do("network", "create", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "-p", "8080:7", "--rootfs", "/", "--", "python3", "-c", serveScript, "7")
	s.eventually("the published port answers", func() bool { return s.answers("127.0.0.1", 8080) })
	s.machine.Sh(t, "iptables -F; iptables -t nat -F")
	if said := s.do("firewall", "reapply"); !strings.Contains(said, "missing") {
		t.Errorf("reapply says %q", said)
	}
	if said := s.do("firewall", "reapply"); said != "nothing was missing" {
		t.Errorf("reapply, with nothing missing, says %q", said)
	}
	if !s.answers("127.0.0.1", 8080) {
		t.Error("the published port does not answer when its rules are back")
	}
	s.end(os.Interrupt)
	s.start("--firewall-backend", "nftables")
	if rules := s.machine.Sh(t, "iptables-save 2>/dev/null | grep LINKSPAN || true; nft list map inet linkspan published4"); strings.Contains(rules, "LINKSPAN") || !strings.Contains(rules, "8080") {
		t.Errorf("the rules did not move:\n%s", rules)
	}
	if !s.answers("127.0.0.1", 8080) {
		t.Error("the published port does not answer with nftables")
	}
	s.machine.Sh(t, "nft flush ruleset")
	s.eventually("the rules come back by themselves", func() bool {
		out, err := s.machine.TrySh("nft list map inet linkspan published4")
		return err == nil && strings.Contains(out, "8080")
	})
	s.leave()
}

// A host with Docker's policy: auto takes iptables, and the doctor has nothing
// to say; told to take nftables, it has.
func TestStoryOfAForeignPolicy(t *testing.T) {
	s := newStory(t)
	s.machine.Sh(t, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
	s.start("--firewall-backend", "auto")
	if info := s.do("info"); !strings.Contains(info, "Firewall Backend: iptables") {
		t.Errorf("info does not name the backend:\n%s", info)
	}
	if said, _ := s.try("doctor"); strings.Contains(said, "foreign-drop-policy") {
		t.Errorf("the doctor says:\n%s", said)
	}
	s.end(os.Interrupt)
	s.start("--firewall-backend", "nftables")
	if said, _ := s.try("doctor"); !strings.Contains(said, "foreign-drop-policy") || !strings.Contains(said, "--firewall-backend iptables") {
		t.Errorf("the doctor says:\n%s", said)
	}
	s.leave()
	s.machine.Sh(t, "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")
}
