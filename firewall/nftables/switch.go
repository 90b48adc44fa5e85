package nftables

import (
	"strings"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

var _ firewall.Switcher = Backend{}

// Switch plans one transaction that takes ports back and publishes others: no
// packet meets neither of the two. Conversations under way do not notice, as
// the kernel asks the maps about first packets only.
func (Backend) Switch(bridge string, old, fresh []sandbox.Port) op.Plan {
	o := ChangeElements{Delete: elementsOf(bridge, old), Add: elementsOf(bridge, fresh)}
	if len(o.Delete)+len(o.Add) == 0 {
		return nil
	}
	return op.Plan{{Why: "Published ports change in one step: " + words(old) + " become " + words(fresh) + ".", Op: o}}
}

func elementsOf(bridge string, ports []sandbox.Port) []Element {
	var elements []Element
	for _, p := range ports {
		if !p.Relayed() {
			elements = append(elements, portElements(bridge, p)...)
		}
	}
	bySet(elements)
	return elements
}

func words(ports []sandbox.Port) string {
	if len(ports) == 0 {
		return "none"
	}
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = p.String()
	}
	return strings.Join(words, ", ")
}
