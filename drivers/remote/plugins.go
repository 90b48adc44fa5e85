package remote

import "github.com/linkspan/linkspan/drivers"

var _ drivers.Plugins = (*Plugins)(nil)

// Driver returns the network driver of a plugin, whether there is one or not.
func (p *Plugins) Driver(name string) drivers.Driver { return Driver{Name: name, Plugins: p} }

// Addresses returns the IPAM driver of a plugin, whether there is one or not.
func (p *Plugins) Addresses(name string) drivers.Addresses {
	return Addresses{Name: name, Plugins: p}
}
