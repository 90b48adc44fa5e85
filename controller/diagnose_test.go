package controller_test

import (
	"slices"
	"testing"

	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/internal/nstest"
)

// findings returns the reasons that Diagnose gives, without what other programs
// on this machine may have set for new namespaces.
func (d *daemon) findings(t *testing.T) []string {
	t.Helper()
	found, err := d.Diagnose(t.Context())
	must(t, err)
	var reasons []string
	for _, f := range found {
		if f.Reason != doctor.ReasonBridgeFilter && f.Reason != doctor.ReasonMissingFeature {
			reasons = append(reasons, f.Reason)
		}
		if f.What == "" || f.So == "" || f.Remedy == "" {
			t.Errorf("a finding without words: %+v", f)
		}
	}
	return slices.Compact(reasons)
}

// What is ours and was spoilt is found, and made as it was; what is not ours is
// found and left alone.
func TestDiagnoseAndRepair(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	id := d.network(t, "lab", pool("10.77.0.0/24", "", ""))
	web := nsOf(d.run(t, spec("web", "lab")))
	br := "br-" + id.Short()
	if got := d.findings(t); len(got) != 0 {
		t.Fatalf("a healthy host has findings %v", got)
	}
	before := m.Dump(t)
	for _, c := range []struct{ spoil, reason string }{
		{"ip addr del 10.77.0.1/24 dev " + br, doctor.ReasonDiffers},
		{"ip link set " + br + " down", doctor.ReasonDiffers},
		{"ip -n " + web + " addr flush dev eth0", doctor.ReasonDiffers},
		{"ip link add stray group 27763 type bridge", doctor.ReasonOrphan},
	} {
		m.Sh(t, c.spoil)
		if got := d.findings(t); !slices.Equal(got, []string{c.reason}) {
			t.Errorf("after %q: %v, want %s", c.spoil, got, c.reason)
		}
		d.Repair(t.Context())
		if got := d.findings(t); len(got) != 0 {
			t.Errorf("%q: repaired, and still %v", c.spoil, got)
		}
		if diff := nstest.Diff(before, settled(t, m)); diff != "" {
			t.Errorf("%q: after the repair:\n%s", c.spoil, diff)
		}
	}

	m.Sh(t, "ip link add vpn type bridge; ip link set vpn up; ip addr add 10.77.0.200/25 dev vpn")
	if got := d.findings(t); !slices.Equal(got, []string{doctor.ReasonPoolOnRoute}) {
		t.Errorf("a VPN on the network's subnet: %v", got)
	}
	foreign := m.Dump(t)
	d.Repair(t.Context())
	if diff := nstest.Diff(foreign, m.Dump(t)); diff != "" {
		t.Errorf("a repair changed what is not ours:\n%s", diff)
	}
	m.Sh(t, "ip link del vpn")
	d.clear(t)
}
