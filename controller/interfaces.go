package controller

import (
	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// chosenInterfaces are the names that a container's user chose for interfaces,
// so that none that is numbered takes one of them first.
func chosenInterfaces(cfg store.Config) (map[string]bool, error) {
	chosen := make(map[string]bool)
	for _, want := range cfg.Attachments {
		if err := checkInterface(want, chosen); err != nil {
			return nil, err
		}
		if name := want.Options[endpoint.OptionInterface]; name != "" {
			chosen[name] = true
		}
	}
	return chosen, nil
}

// interfacesOf are the names in a live sandbox, those on their way out among
// them.
func interfacesOf(t store.Tables, sandbox linkspan.ID) map[string]bool {
	names := make(map[string]bool)
	for _, row := range t.By.EndpointsBySandbox.All(sandbox) {
		names[row.Value.Interface] = true
	}
	return names
}

// interfaceName returns the chosen name of an interface, or the lowest number
// that is free.
func interfaceName(n network.Network, want endpoint.Config, taken map[string]bool) string {
	if name := want.Options[endpoint.OptionInterface]; name != "" {
		return name
	}
	return endpoint.FreeInterface(n.InterfacePrefix(), taken)
}

// checkInterface refuses a chosen name that another interface has.
func checkInterface(want endpoint.Config, taken map[string]bool) error {
	name := want.Options[endpoint.OptionInterface]
	if name == "lo" || taken[name] {
		return linkspan.Errorf(linkspan.ErrConflict, "error renaming interface of network %s to %q: file exists: the container has an interface of that name (%s)", want.Network, name, endpoint.OptionInterface)
	}
	return nil
}

// remember keeps what endpoints got, so that the next start of their container
// can have it again: its MAC always, its addresses if nobody took them since.
func remember(t store.Tables, owner linkspan.ID, links ...link) {
	row, ok := t.Configs.Get(owner)
	if !ok {
		return
	}
	attachments := make([]endpoint.Config, len(row.Value.Attachments))
	changed := false
	for i, want := range row.Value.Attachments {
		for _, l := range links {
			if last := l.endpoint.Used(); isNetwork(want, l.network) && want.Last != last {
				want.Last, changed = last, true
			}
		}
		attachments[i] = want
	}
	if changed {
		row.Value.Attachments = attachments
		t.Configs.Put(owner, row)
	}
}
