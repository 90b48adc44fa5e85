package kernel_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan/internal/nstest"
)

func TestChains(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, `nft -f - <<'EOF'
table ip nat {
	chain out { type nat hook postrouting priority srcnat; masquerade; }
	chain called { accept; }
}
table inet guard {
	chain forward { type filter hook forward priority 0; policy drop; ct state established accept; jump more; }
	chain more { accept; }
}
table bridge quiet {
	chain pre { type filter hook prerouting priority 0; }
}
EOF`)
	t.Cleanup(func() { m.Sh(t, "nft flush ruleset") })
	chains, err := m.Host().Chains("")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range chains {
		got = append(got, fmt.Sprint(c))
	}
	want := []string{
		"bridge quiet pre: hook prerouting, policy accept, 0 rules",
		"inet guard forward: hook forward, policy drop, 2 rules",
		"ip nat out: hook postrouting, policy accept, 1 rules",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}
