package nftables

import (
	"context"

	"github.com/google/nftables"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
)

// AddTable makes the table "inet linkspan" in the machine's own namespace, with
// its rules and its empty sets and maps.
type AddTable struct {
	// Accept is the mark of packets that may enter any network.
	Accept firewall.Mark `json:",omitzero"`
}

// Do makes the table in one transaction. It fails with linkspan.ErrConflict if
// there is one of that name, ours or not.
func (o AddTable) Do(_ context.Context, h *kernel.Host) error { return o.table().add(h) }

// Undo deletes the table with all networks' elements.
func (o AddTable) Undo(_ context.Context, h *kernel.Host) error { return o.table().remove(h) }

// Check compares everything but the elements of sets and maps.
func (o AddTable) Check(_ context.Context, h *kernel.Host) error { return o.table().check(h) }

func (o AddTable) String() string { return o.table().String() }

// base is the table as whoever looks for its sets needs it.
func base() ruleset { return AddTable{}.table() }

// table returns the table of the package comment.
func (o AddTable) table() ruleset {
	accept := nftables.ChainPolicyAccept
	hooked := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, decl string, rules []rule) chain {
		return chain{
			Chain: nftables.Chain{Name: name, Type: kind, Hooknum: hook, Priority: priority, Policy: &accept},
			decl:  decl, rules: rules,
		}
	}
	return ruleset{
		table:  &nftables.Table{Name: "linkspan", Family: nftables.TableFamilyINet},
		family: "inet",
		sets:   baseSets(),
		chains: []chain{
			{Chain: nftables.Chain{Name: "published"}, rules: publishedRules()},
			{Chain: nftables.Chain{Name: "apart"}, rules: apartRules()},
			{Chain: nftables.Chain{Name: "direct"}, rules: directRules()},
			{Chain: nftables.Chain{Name: "routed"}, rules: routedRules()},
			{Chain: nftables.Chain{Name: "trusted"}, rules: trustedRules()},
			hooked("loopback", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw,
				"type filter hook prerouting priority raw", loopbackRules()),
			hooked("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest,
				"type nat hook prerouting priority dstnat", preroutingRules()),
			hooked("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest,
				"type nat hook output priority -100", outputRules()),
			hooked("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter,
				"type filter hook forward priority filter", forwardRules(o.Accept)),
			hooked("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
				"type nat hook postrouting priority srcnat", postroutingRules()),
		},
	}
}
