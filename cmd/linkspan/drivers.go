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
// type. That of bridges is set by flags.
func builtIn(bridges bridge.Driver) map[string]drivers.Driver {
	return map[string]drivers.Driver{
		"bridge": bridges, "container": container.Driver{}, "host": host.Driver{}, "ipvlan": macvlan.IPvlan{}, "macvlan": macvlan.Driver{}, "null": none.Driver{}, "overlay": overlay.Driver{Bridge: bridges},
	}
}

// builtInNetworks returns the names of the drivers that networks can be made
// of, in order.
func builtInNetworks() []string {
	var names []string
	all := builtIn(bridge.Driver{})
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name].Traits().Borrows != drivers.Container {
			names = append(names, name)
		}
	}
	return names
}
