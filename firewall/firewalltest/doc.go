// Package firewalltest is the suite that every firewall.Backend passes: what a
// backend says it does is what it does, its undoing leaves nothing, and packets
// between real namespaces go where package firewall says they go.
//
//	func TestBackend(t *testing.T) { firewalltest.Run(t, firewalltest.Subject{Backend: …}) }
//
// The rules of two backends have nothing in common but their effect, which is
// why the suite sends packets and looks at no rule.
package firewalltest
