package driverstest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// plain is a bridge driver without options. Its switch can be exchanged for a
// faulty one.
type plain struct {
	bridge  op.Op
	planned *int // if not nil, plans differ from call to call
}

func (plain) Traits() drivers.Traits {
	return drivers.Traits{Scope: "local", Addresses: true}
}

func (plain) Check(context.Context, *kernel.Host, network.Network) error { return nil }

func (d plain) Network(network.Network) (op.Plan, error) {
	why := "a switch"
	if d.planned != nil {
		*d.planned++
		why = fmt.Sprint("plan ", *d.planned)
	}
	return op.Plan{{Why: why, Op: d.bridge}, {Why: "it is on", Op: op.SetUp{Link: "br0"}}}, nil
}

func (plain) Endpoint(_ network.Network, e endpoint.Endpoint, s sandbox.Sandbox) (op.Plan, error) {
	return op.Plan{
		{Why: "a cable", Op: op.AddVeth{Name: e.HostLink(), MAC: e.HostMAC, Master: "br0", Peer: e.Interface, PeerMAC: e.MAC, PeerNS: s.Netns()}},
		{Why: "an address", Op: op.AddAddress{NS: s.Netns(), Link: e.Interface, Address: e.IPv4}},
		{Why: "its far end is on", Op: op.SetUp{NS: s.Netns(), Link: e.Interface}},
		{Why: "its near end is on", Op: op.SetUp{Link: e.HostLink()}},
	}, nil
}

var sound = op.AddBridge{Name: "br0", MAC: "02:42:0a:4d:00:01"}

// Faulty switches, each with one fault.
type (
	lying   struct{ op.AddBridge } // prints what it does not do
	sticky  struct{ op.AddBridge } // is not undone
	fragile struct{ op.AddBridge } // cannot be undone when it is gone
	greedy  struct{ op.AddBridge } // deletes what is not its own
	hasty   struct{ op.AddBridge } // takes what is there for its own
	blind   struct{ op.AddBridge } // does not find itself
)

func (o lying) String() string { return o.AddBridge.String() + " stp_state 1" }

func (sticky) Undo(context.Context, *kernel.Host) error { return nil }

func (o fragile) Undo(ctx context.Context, h *kernel.Host) error {
	return errors.Join(o.AddBridge.Check(ctx, h), o.AddBridge.Undo(ctx, h)) //nolint:staticcheck // its own methods hide those of the one that it spoils
}

func (o greedy) Undo(_ context.Context, h *kernel.Host) error {
	links, err := h.Links("")
	if err != nil {
		return err
	}
	link, err := links.LinkByName(o.Name)
	if err != nil {
		return nil //nolint:nilerr // gone already, whoever it belonged to
	}
	return links.LinkDel(link)
}

func (o hasty) Do(ctx context.Context, h *kernel.Host) error {
	o.AddBridge.Do(ctx, h)
	return nil
}

func (blind) Check(context.Context, *kernel.Host) error { return errors.New("nothing to be seen") }

// The suite notices each fault, by the property that is meant to. It cannot
// fail in this process without failing this test, so another one runs it.
func TestSuiteNoticesFaults(t *testing.T) {
	const chosen = "DRIVERSTEST_FAULT"
	for _, fault := range []struct {
		name, property string
		driver         plain
		change         func(*driverstest.Fixture)
		want           string // in the output; empty: the driver is sound and the suite content
	}{
		{"sound", ".*", plain{bridge: sound}, nil, ""},
		{"impure", "PlansArePure", plain{bridge: sound, planned: new(int)}, nil, "gave another plan"},
		{"unstorable", "PlansCanBeStored", plain{bridge: sound}, func(f *driverstest.Fixture) { f.Driver = plain{bridge: struct{ op.AddBridge }{sound}} }, "no name is known"},
		{"lying", "SaidIsDone", plain{bridge: lying{sound}}, nil, "+ host: link br0 linkinfo info_data stp_state 1"},
		{"blind", "SaidIsDone", plain{bridge: blind{sound}}, nil, "nothing to be seen"},
		{"sticky", "SaidIsDone", plain{bridge: sticky{sound}}, nil, "the machine is not as it was before"},
		{"fragile", "UndoneIsGone", plain{bridge: fragile{sound}}, nil, "does not exist"},
		{"greedy", "StrangersAreLeftAlone", plain{bridge: greedy{sound}}, nil, "touched it"},
		{"hasty", "StrangersAreLeftAlone", plain{bridge: hasty{sound}}, nil, "want a conflict"},
		{"together", "Traffic", plain{bridge: sound}, func(f *driverstest.Fixture) { f.Apart = true }, "answered is true, want false"},
	} {
		if os.Getenv(chosen) == fault.name {
			f := driverstest.Local(fault.driver, nil, false)
			f.Codec = op.NewCodec(op.Kinds{"lying": lying{}, "sticky": sticky{}, "fragile": fragile{}, "greedy": greedy{}, "hasty": hasty{}, "blind": blind{}})
			if fault.change != nil {
				fault.change(&f)
			}
			driverstest.Run(t, f)
			return
		}
		if os.Getenv(chosen) != "" {
			continue
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestSuiteNoticesFaults$/^"+fault.property+"$", "-test.v")
		cmd.Env = append(os.Environ(), chosen+"="+fault.name)
		out, err := cmd.CombinedOutput()
		if failed := err != nil; failed != (fault.want != "") {
			t.Errorf("a %s driver: the suite failed is %v (%v)\n%s", fault.name, failed, err, out)
		}
		if !strings.Contains(string(out), fault.want) {
			t.Errorf("a %s driver: the suite does not say %q:\n%s", fault.name, fault.want, out)
		}
	}
}
