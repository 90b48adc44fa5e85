package ipam

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
)

// plain compares the address types of net/netip by ==.
var plain = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func pfx(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(s)
}

func ip(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

// wantError fails unless err is of the given kind and has the text in it. A
// kind of nil wants no error.
func wantError(t *testing.T, err, kind error, text string) {
	t.Helper()
	switch {
	case kind == nil && err != nil:
		t.Errorf("unexpected error: %v", err)
	case kind != nil && err == nil:
		t.Errorf("no error, want %q", text)
	case kind != nil && !errors.Is(err, kind):
		t.Errorf("error %q is not of kind %q", err, kind)
	case kind != nil && !strings.Contains(err.Error(), text):
		t.Errorf("error %q does not contain %q", err, text)
	}
}

func TestParseBase(t *testing.T) {
	for _, tc := range []struct {
		value string
		want  Base
		text  string // of an error
	}{
		{value: "base=10.201.0.0/16,size=24", want: Base{pfx("10.201.0.0/16"), 24}},
		{value: "size=24,base=10.201.0.0/16", want: Base{pfx("10.201.0.0/16"), 24}},
		{value: "base=10.201.0.0/24,size=24", want: Base{pfx("10.201.0.0/24"), 24}},
		{value: "base=10.201.0.0/16,size=32", want: Base{pfx("10.201.0.0/16"), 32}},
		{value: "base=fd00:1::/48,size=64", want: Base{pfx("fd00:1::/48"), 64}},
		{value: "base=10.201.3.0/16,size=24", text: "default address pool 10.201.3.0/16 is not in canonical form: it should be 10.201.0.0/16"},
		{value: "base=10.201.0.0/24,size=16", text: "default address pool 10.201.0.0/24 has a smaller prefix (/24) than the target size of that pool (/16)"},
		{value: "base=10.201.0.0/16,size=33", text: "an address has 32 bits"},
		{value: "base=10.201.0.0/16,size=-1", text: "smaller prefix"},
		{value: "base=::ffff:10.0.0.0/112,size=120", text: "write the IPv4 block"},
		{value: "base=10.201.0.0,size=24", text: "parsing base"},
		{value: "base=10.201.0.0/16,size=big", text: "parsing size"},
		{value: "base=10.201.0.0/16", text: "write base=CIDR,size=BITS"},
		{value: "size=24", text: "write base=CIDR,size=BITS"},
		{value: "", text: "write base=CIDR,size=BITS"},
		{value: "base=10.201.0.0/16,size=24,size=25", text: "size is given twice"},
		{value: "base=10.201.0.0/16,mask=24", text: `unknown field "mask"`},
	} {
		t.Run(tc.value, func(t *testing.T) {
			got, err := ParseBase(tc.value)
			if tc.text != "" {
				wantError(t, err, linkspan.ErrInvalid, tc.text)
				return
			}
			wantError(t, err, nil, "")
			if got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			again, err := ParseBase(got.String())
			if err != nil || again != got {
				t.Errorf("ParseBase(%q) = %v, %v", got.String(), again, err)
			}
		})
	}
}

func TestBaseJSON(t *testing.T) {
	// The spelling of the daemon's configuration file.
	var got Base
	if err := json.Unmarshal([]byte(`{"base":"10.201.0.0/16","size":24}`), &got); err != nil {
		t.Fatal(err)
	}
	if want := (Base{pfx("10.201.0.0/16"), 24}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	// The spelling of GET /info.
	text, err := json.Marshal(got)
	if err != nil || string(text) != `{"Base":"10.201.0.0/16","Size":24}` {
		t.Errorf("got %s, %v", text, err)
	}
}

// The block of a host must stay what a Docker daemon with the same ID has.
func TestDefaultBases6(t *testing.T) {
	for hostID, want := range map[string]string{
		"":                                     "fd42:98fc:1c14::/48",
		"499d4bc0-b0b3-416f-b1ee-cf6486315593": "fd62:fb69:18af::/48",
	} {
		got := DefaultBases6(hostID)
		if diff := cmp.Diff([]Base{{pfx(want), 64}}, got, plain); diff != "" {
			t.Errorf("host %q (-want +got):\n%s", hostID, diff)
		}
	}
}

func TestDefaultsAreFreshAndValid(t *testing.T) {
	DefaultBases()[0].Size = 1
	all := append(DefaultBases(), DefaultBases6("host")...)
	for _, b := range append(all, ClusterBases()...) {
		if err := b.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestBases(t *testing.T) {
	four, six := Base{pfx("10.0.0.0/8"), 24}, Base{pfx("fd01::/48"), 64}
	for _, tc := range []struct {
		name       string
		configured []Base
		v4, v6     []Base
	}{
		{"none", nil, DefaultBases(), DefaultBases6("h")},
		{"v4", []Base{four}, []Base{four}, DefaultBases6("h")},
		{"v6", []Base{six}, DefaultBases(), []Base{six}},
		{"both", []Base{six, four}, []Base{four}, []Base{six}},
	} {
		v4, v6 := Bases(tc.configured, "h")
		if diff := cmp.Diff([][]Base{tc.v4, tc.v6}, [][]Base{v4, v6}, plain); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func FuzzParseBase(f *testing.F) {
	f.Add("base=10.201.0.0/16,size=24")
	f.Add("size=64,base=fd00::/48")
	f.Add("base=10.0.0.0/8,size=7")
	f.Fuzz(func(t *testing.T, value string) {
		b, err := ParseBase(value)
		if err != nil {
			if !errors.Is(err, linkspan.ErrInvalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		if again, err := ParseBase(b.String()); err != nil || again != b {
			t.Fatalf("ParseBase(%q) = %v, %v", b.String(), again, err)
		}
		// A base that is accepted can serve: its first subnet is itself.
		subnet, err := Choose([]Base{b}, nil)
		if err != nil || subnet != netip.PrefixFrom(b.Prefix.Addr(), b.Size) {
			t.Fatalf("first subnet of %v: %v, %v", b, subnet, err)
		}
	})
}
