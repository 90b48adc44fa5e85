// Package plugintest holds plugins for tests, built with the library that most
// plugins are built with (docker/go-plugins-helpers): a bridge-like network
// driver, and an IPAM driver that hands out the lowest free address. A hook may
// make any of their calls fail, wait or die.
//
// A plugin here is a server of the test's own process, but speaks over its socket
// like one of its own:
//
//	driver := plugintest.NewNetwork(machine)
//	server := plugintest.Serve(t, "/run/docker/plugins/lab.sock", driver.Handler())
//	…
//	server.Stop()     // the plugin is gone
package plugintest
