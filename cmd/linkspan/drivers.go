package main

import (
	"maps"
	"slices"

	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/drivers/container"
	"github.com/linkspan/linkspan/drivers/host"
	"github.com/linkspan/linkspan/drivers/macvlan"
	"github.com/linkspan/linkspan/drivers/none"
	"github.com/linkspan/linkspan/drivers/overlay"
)

// builtIn returns the drivers that every daemon has, by the name that users
// type. Those of bridges and of tunnels are set by flags.
func builtIn(bridges bridge.Driver, tunnels overlay.Driver) map[string]drivers.Driver {
	tunnels.Bridge = bridges
	tunnels.Bridge = bridges
	return map[string]drivers.Driver{
		"bridge": bridges, "container": container.Driver{}, "host": host.Driver{}, "ipvlan": macvlan.IPvlan{}, "macvlan": macvlan.Driver{}, "null": none.Driver{}, "overlay": tunnels,
	}
}

// builtInNetworks returns the names of the drivers that networks can be made
// of, in order.
func builtInNetworks() []string {
	var names []string
	all := builtIn(bridge.Driver{}, overlay.Driver{})
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name].Traits().Borrows != drivers.Container {
			names = append(names, name)
		}
	}
	return names
}
