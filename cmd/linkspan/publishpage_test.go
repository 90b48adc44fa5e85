package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the pages that are made of explain anew")

// TestPublishPage makes docs/labs/publish.md of what explain says. Names that
// are chosen by chance are replaced by words.
func TestPublishPage(t *testing.T) {
	s := newStory(t)
	s.start()
	defer s.leave()
	s.do("network", "create", "--subnet", "10.77.0.0/24", "-o", "com.docker.network.bridge.name=br-lab", "lab")
	script := s.do("explain", "run", "-d", "-p", "8080:80", "--network", "lab", "--hostname", "web", "--dns", "10.77.0.53",
		"--dns-search", "example.org", "--dns-option", "ndots:0", "--rootfs", "/", "--", "python3", "-m", "http.server", "80")
	for _, mask := range []struct{ pattern, word string }{
		{`Based on host file: '[^']*'`, "Based on host file: '/etc/resolv.conf'"},
		{`linkspan-[0-9a-f]{12}`, "linkspan-SANDBOX"},
		{`veth[0-9a-f]{7}`, "vethENDPOINT"},
		{`([0-9a-f]{2}:){5}[0-9a-f]{2}`, "MAC"},
		{regexp.QuoteMeta(s.dir) + `/exec`, "/run/linkspan"},
		{`sandboxes/[0-9a-f]{12}`, "sandboxes/SANDBOX"},
		{`containers/[0-9a-f]{12,64}`, "containers/CONTAINER"},
		{regexp.QuoteMeta(s.dir) + `/data`, "/var/lib/linkspan"},
		{`\b[0-9a-f]{64}\b`, "CONTAINER"},
		{`\b[0-9a-f]{12}\b`, "CONTAINER"},
	} {
		script = regexp.MustCompile(mask.pattern).ReplaceAllString(script, mask.word)
	}
	page := "# What `docker run -p` really does\n\n" +
		"On a network `lab` (10.77.0.0/24, bridge `br-lab`) the command\n\n" +
		"    docker run -d -p 8080:80 --network lab …\n\n" +
		"amounts to these commands. `linkspan explain run …` prints them for any run, without doing them; names that are chosen by\n" +
		"chance are words in capitals here.\n\n```sh\n" + strings.TrimRight(script, "\n") + "\n```\n"
	name := filepath.Join("..", "..", "docs", "labs", "publish.md")
	if *update {
		if err := os.WriteFile(name, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(have), page); diff != "" {
		t.Errorf("%s is not what explain says (- page, + explain; make golden writes it anew):\n%s", name, diff)
	}
}
