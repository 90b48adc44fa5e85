package op_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

const withLent = withBox + "ip link add lent0 address 02:42:0a:4d:00:02 type veth peer name lent1 address 02:42:0a:4d:00:03; ip addr add 10.9.9.9/24 dev lent0; ip link set lent0 up; "

// A link of somebody else's is lent to a sandbox and given back.
func TestMoveLink(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, withLent)
	o := op.MoveLink{Link: "lent0", NS: "box", As: "eth0"}
	before := m.Dump(t)
	if err := o.Check(t.Context(), m.Host()); err == nil {
		t.Error("Check is content before Do")
	}
	if err := o.Undo(t.Context(), m.Host()); err != nil || nstest.Diff(before, m.Dump(t)) != "" {
		t.Errorf("Undo of nothing: %v\n%s", err, nstest.Diff(before, m.Dump(t)))
	}
	if err := o.Do(t.Context(), m.Host()); err != nil {
		t.Fatal(err)
	}
	if err := o.Check(t.Context(), m.Host()); err != nil {
		t.Error(err)
	}
	done := m.Dump(t)
	if err := o.Undo(t.Context(), m.Host()); err != nil {
		t.Error(err)
	}
	if out := m.Sh(t, "ip -o link show lent0; ip -n box -o link"); strings.Contains(out, "eth0") {
		t.Errorf("not given back:\n%s", out)
	}
	m.Sh(t, o.String())
	if diff := nstest.Diff(done, m.Dump(t)); diff != "" {
		t.Errorf("what is said is not what is done (- done, + said):\n%s", diff)
	}

	// Its name was taken meanwhile: it stays where it is, and the refusal says so.
	m.Sh(t, "ip link add lent0 type bridge")
	if err := o.Undo(t.Context(), m.Host()); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "lent0") {
		t.Errorf("giving back where the name is taken: %v", err)
	}
	m.Sh(t, "ip link del lent0")
	if err := o.Undo(t.Context(), m.Host()); err != nil {
		t.Error(err)
	}
	// So was the name in the sandbox.
	m.Sh(t, "ip -n box link add eth0 type bridge")
	if err := o.Do(t.Context(), m.Host()); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("moving to a taken name: %v", err)
	}
	// A sandbox that died took the link along.
	m.Sh(t, "ip -n box link del eth0")
	if err := o.Do(t.Context(), m.Host()); err != nil {
		t.Fatal(err)
	}
	m.Sh(t, "ip netns del box")
	if err := o.Undo(t.Context(), m.Host()); err != nil {
		t.Error(err)
	}
	if err := (op.MoveLink{Link: "none0", NS: "box", As: "eth0"}).Do(t.Context(), m.Host()); !errors.Is(err, linkspan.ErrNotFound) || !strings.Contains(err.Error(), "none0") {
		t.Errorf("moving a link that is not there: %v", err)
	}
	m.Sh(t, "test ! -e /sys/class/net/lent1 || ip link del lent1 || true")
}

func TestSetMAC(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, withLent)
	o := op.SetMAC{Link: "lent0", MAC: "02:42:0a:4d:00:99", Was: "02:42:0a:4d:00:02"}
	before := m.Dump(t)
	if err := o.Check(t.Context(), m.Host()); err == nil {
		t.Error("Check is content before Do")
	}
	if err := o.Do(t.Context(), m.Host()); err != nil {
		t.Fatal(err)
	}
	if err := o.Check(t.Context(), m.Host()); err != nil {
		t.Error(err)
	}
	done := m.Dump(t)
	if err := o.Undo(t.Context(), m.Host()); err != nil || nstest.Diff(before, m.Dump(t)) != "" {
		t.Errorf("Undo: %v\n%s", err, nstest.Diff(before, m.Dump(t)))
	}
	m.Sh(t, o.String())
	if diff := nstest.Diff(done, m.Dump(t)); diff != "" {
		t.Errorf("what is said is not what is done:\n%s", diff)
	}
	m.Sh(t, "ip link del lent0; ip netns del box")
	if err := o.Undo(t.Context(), m.Host()); err != nil {
		t.Errorf("Undo when the link is gone: %v", err)
	}
}

// asking is an op that learns something, and may fail so that it is left open
// whether it was done.
type asking struct {
	Answer string
	fail   error
	undone *[]string
	name   string
}

func (o asking) Do(ctx context.Context, h *kernel.Host) error { _, err := o.Ask(ctx, h); return err }

func (o asking) Ask(context.Context, *kernel.Host) (op.Op, error) {
	if o.fail != nil {
		return o, o.fail
	}
	o.Answer = "yes"
	return o, nil
}

func (o asking) Undo(context.Context, *kernel.Host) error {
	*o.undone = append(*o.undone, o.name+o.Answer)
	if o.name == "stuck" {
		return errors.New("away")
	}
	return nil
}
func (asking) Check(context.Context, *kernel.Host) error { return nil }
func (o asking) String() string                          { return o.name }

// Undo sees answers; what may be half done is undone too; what cannot be is told.
func TestAsk(t *testing.T) {
	var undone []string
	step := func(name string, fail error) op.Step {
		return op.Step{Op: asking{name: name, fail: fail, undone: &undone}}
	}
	x := op.Executor{}
	plan, err := x.Ask(t.Context(), op.Plan{step("a", nil), step("b", nil)})
	if err != nil || plan[0].Op.(asking).Answer != "yes" {
		t.Errorf("%v %v", plan, err)
	}
	refused := errors.New("refused")
	if _, err = x.Ask(t.Context(), op.Plan{step("a", nil), step("b", refused)}); !errors.Is(err, refused) || errors.Is(err, op.ErrLeft) || strings.Join(undone, " ") != "ayes" {
		t.Errorf("a refusal: %v, undone %v", err, undone)
	}
	undone = nil
	if _, err = x.Ask(t.Context(), op.Plan{step("a", nil), step("b", op.Left(refused))}); !errors.Is(err, op.ErrLeft) || strings.Join(undone, " ") != "b ayes" {
		t.Errorf("a failure in doubt: %v, undone %v", err, undone)
	}
	undone = nil
	if err = x.Do(t.Context(), op.Plan{step("stuck", nil), step("b", refused)}); !errors.Is(err, op.ErrLeft) || !errors.Is(err, refused) {
		t.Errorf("an undo that fails: %v", err)
	}
	program := func(name string) op.Step { return op.Step{Op: outside{asking{name: name, undone: &undone}}} }
	for _, test := range []struct {
		plan op.Plan
		owed bool
	}{
		{op.Plan{step("a", nil), program("stuck"), program("stuck")}, true},
		{op.Plan{step("stuck", nil), program("stuck")}, false},
		{op.Plan{step("stuck", nil), program("b")}, false},
		{op.Plan{program("b")}, false},
	} {
		if err := x.Undo(t.Context(), test.plan); op.OnlyOwed(err) != test.owed {
			t.Errorf("only owed to programs is %v: %v", !test.owed, err)
		}
	}
}

// outside is an asking of a program's.
type outside struct{ asking }

func (outside) Party() string { return "somebody" }
