package resolvconf

import (
	"errors"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
)

func TestOverrideValues(t *testing.T) {
	parse := func(s string) error { _, err := ParseNameserver(s); return err }
	tests := []struct {
		check func(string) error
		good  []string
		bad   []string
	}{
		{parse, []string{"10.0.0.2", "fd00::1", "fe80::1%eth0"}, []string{"", "10.0.0.2:53", "dns.example", "10.0.0.2\nnameserver 1.1.1.1"}},
		{CheckSearch, []string{"corp.example", "corp.example.", ".", "_tcp.lab"}, []string{"", "..", "a..b", "a b", "a\nnameserver 1.1.1.1", "#x", strings.Repeat("a", 64)}},
		{CheckOption, []string{"ndots:1", "edns0", "timeout:2"}, []string{"", "a b", "a\noptions b", ";x"}},
	}
	for i, test := range tests {
		for _, s := range test.good {
			if err := test.check(s); err != nil {
				t.Errorf("%d: %q: %v", i, s, err)
			}
		}
		for _, s := range test.bad {
			if err := test.check(s); !errors.Is(err, linkspan.ErrInvalid) {
				t.Errorf("%d: %q: %v, want a refusal", i, s, err)
			}
		}
	}
}
