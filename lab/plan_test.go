package lab

import (
	"strings"
	"testing"
)

// TestNetemPlan is about kernels that this one need not be.
func TestNetemPlan(t *testing.T) {
	f, _, err := Parse([]byte(`name: lan
switches: {sw: {}}
nodes: {b: {}}
links:
  - {ends: ["b:eth0", sw], rate: 1mbit, loss: 2.5%, delay: 20ms}
`))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := f.plan(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# The cable is bad: rate 1mbit, loss 2.5%, delay 20ms.\ntc -n lab-lan-b qdisc add dev eth0 root handle 6c73: netem delay 20000us loss 2.5% rate 1000000bit\n",
		"\ntc qdisc add dev port0 root handle 6c73: netem delay 20000us loss 2.5% rate 1000000bit\n",
	} {
		if !strings.Contains(plan.String(), want) {
			t.Errorf("no %q in\n%s", want, plan)
		}
	}
	if strings.Contains(plan.String(), "tbf") || strings.Contains(plan.String(), "nft") {
		t.Errorf("netem does all of it, and yet:\n%s", plan)
	}
	f.Links[0].Delay = 0
	if plan, err = f.plan(false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# The cable is slow: 1mbit.\ntc -n lab-lan-b qdisc add dev eth0 root handle 6c73: tbf rate 1000000bit burst 3036 limit 18216\n",
		"# The cable loses 2.5% of what arrives here.\nnsenter --net=/run/netns/lab-lan-b nft 'table netdev linkspan-loss-eth0 {",
		"numgen random mod 1000000 < 25000 counter drop",
	} {
		if !strings.Contains(plan.String(), want) {
			t.Errorf("no %q in\n%s", want, plan)
		}
	}
}
