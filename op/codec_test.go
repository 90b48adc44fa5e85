package op_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/linkspan/linkspan/op"
)

// Each op and plan survives being stored.
func TestCodecRoundTrip(t *testing.T) {
	var plan op.Plan
	for _, s := range specimens() {
		plan = append(plan, op.Step{Why: s.name, Op: s.op})
	}
	codec := op.NewCodec()
	raw, err := codec.Marshal(plan)
	ok(t, err)
	got, err := codec.Unmarshal(raw)
	ok(t, err)
	if diff := cmp.Diff(plan, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Errorf("a plan was changed by storing it (-want +got):\n%s", diff)
	}
	if again, err := codec.Marshal(got); err != nil || string(again) != string(raw) {
		t.Errorf("stored twice, it reads differently (%v)", err)
	}
}

// stray is an op that no codec knows.
type stray struct{ op.AddNetns }

func TestCodecRefuses(t *testing.T) {
	codec := op.NewCodec()
	if _, err := codec.Marshal(op.Plan{{Op: stray{}}}); err == nil || !strings.Contains(err.Error(), "stray") {
		t.Errorf("storing an op of unknown kind: %v", err)
	}
	for _, bad := range []struct{ raw, want string }{
		{`[{"kind":"warp","op":{}}]`, "warp"},
		{`[{"kind":"netns","op":{"Name":"a","Colour":"red"}}]`, "Colour"},
		{`[{"kind":"address","op":{"Link":"a","Address":"x"}}]`, "address"},
		{`[{"kind":"netns","op":{"Name":1}}]`, "netns"},
		{`{`, "stored plan"},
	} {
		if _, err := codec.Unmarshal([]byte(bad.raw)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("Unmarshal(%s): %v; want an error that names %s", bad.raw, err, bad.want)
		}
	}
	if _, err := op.NewCodec(op.Kinds{"stray": stray{}}).Marshal(op.Plan{{Op: stray{}}}); err != nil {
		t.Errorf("a kind of another package: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("two kinds of one name: no panic")
		}
	}()
	op.NewCodec(op.Kinds{"netns": stray{}})
}
