// Package sandbox holds the record of a sandbox: the network stack of the
// Container Network Model, which is a network namespace and the files that
// tell the programs in it about names.
//
// By hand:
//
//	ip netns add linkspan-0123456789ab
//	ip -n linkspan-0123456789ab link set lo up
//	printf '127.0.0.1\tlocalhost\n' > hosts      # bound over /etc/hosts
//
// A Sandbox lives from the container's start until it stops; what the user wants
// of it, which outlives that, is store.Config.
package sandbox

import (
	"path/filepath"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/op"
)

// Sandbox is the record of a live network namespace.
type Sandbox struct {
	ID    linkspan.ID
	Owner linkspan.ID
	// OfHost says that the namespace is the host's own, and only the files are
	// the sandbox's.
	OfHost   bool   `json:",omitempty"`
	Dir      string // holds hosts, resolv.conf and hostname
	Resolver bool   `json:",omitempty"` // whether the embedded resolver answers in it

	Container Container `json:",omitzero"`
}

// Container is what a driver may be told of the container.
type Container struct {
	Labels  map[string]string `json:",omitempty"`
	Exposed []string          `json:",omitempty"` // ports: 80/tcp
	Publish []Wish            `json:",omitempty"` // what of them is published
	Servers []string          `json:",omitempty"` // whom it asks for names, if it says so itself
}

// Netns returns the name that the namespace is pinned under.
func (s Sandbox) Netns() string { return "linkspan-" + s.ID.Short() }

// Hosts returns the path of the file that is bound over /etc/hosts.
func (s Sandbox) Hosts() string { return filepath.Join(s.Dir, "hosts") }

// ResolvConf returns the path of the file that is bound over /etc/resolv.conf.
func (s Sandbox) ResolvConf() string { return filepath.Join(s.Dir, "resolv.conf") }

// HostnameFile returns the path of the file that is bound over /etc/hostname.
func (s Sandbox) HostnameFile() string { return filepath.Join(s.Dir, "hostname") }

// Files are the texts that a sandbox starts with.
type Files struct{ Hosts, ResolvConf, Hostname string }

// Plan returns the plan of the sandbox itself: namespace, loopback and files.
func (s Sandbox) Plan(files Files) op.Plan {
	ns := s.Netns()
	return append(op.Plan{
		{Why: "A sandbox is a network namespace: a network stack of the container's own.", Op: op.AddNetns{Name: ns}},
		{Why: "Programs expect to reach themselves by 127.0.0.1.", Op: op.SetUp{NS: ns, Link: "lo"}},
	}, s.FilesPlan(files)...)
}

// FilesPlan returns the plan of the files alone, for a sandbox whose namespace
// is borrowed.
func (s Sandbox) FilesPlan(files Files) op.Plan {
	return op.Plan{
		{Why: "Names that the container knows without asking; bound over its /etc/hosts.", Op: op.WriteFile{Path: s.Hosts(), Text: files.Hosts}},
		{Why: "Whom the container asks for other names; bound over its /etc/resolv.conf.", Op: op.WriteFile{Path: s.ResolvConf(), Text: files.ResolvConf}},
		{Why: "The container's own name; bound over its /etc/hostname.", Op: op.WriteFile{Path: s.HostnameFile(), Text: files.Hostname}},
	}
}
