package lab

import (
	"strings"

	"github.com/linkspan/linkspan"
)

// End is an end of a cable of a lab, for whoever wants to listen there.
type End struct {
	Node  string // or the switch
	Face  string // interface, or the switch's port
	Netns string // for ip -n
	Link  int    // by number, from 0
}

// Ends returns the ends of a lab's cables that names stand for: a node or a switch
// is all of its own, node:interface and switch:port are one. Without names it is
// one end of each cable: what passes one passes the other.
func (e *Engine) Ends(name string, words ...string) ([]End, error) {
	s, err := e.known(name)
	if err != nil {
		return nil, err
	}
	f, _, err := Parse([]byte(s.Text))
	if err != nil {
		return nil, err
	}
	var all []End
	for i, l := range f.Links {
		for j := range l.Ends {
			ns, face := f.at(i, j)
			if ns == "" {
				ns = Root(name)
			}
			all = append(all, End{Node: l.end(j).node, Face: face, Netns: ns, Link: i})
		}
	}
	var found []End
	if len(words) == 0 {
		for i := 0; i < len(all); i += 2 {
			found = append(found, all[i])
		}
	}
	for _, word := range words {
		before := len(found)
		for _, end := range all {
			if word == end.Node || word == end.String() {
				found = append(found, end)
			}
		}
		if len(found) == before {
			var names []string
			for _, end := range all {
				names = append(names, end.String())
			}
			return nil, linkspan.Errorf(linkspan.ErrNotFound, "lab %s has no cable at %s: there are %s", name, word, strings.Join(names, ", "))
		}
	}
	return found, nil
}

func (e End) String() string { return e.Node + ":" + e.Face }

// Stations maps the MACs and addresses of a lab's file to the nodes and switches
// that have them.
func (e *Engine) Stations(name string) (map[string]string, error) {
	s, err := e.known(name)
	if err != nil {
		return nil, err
	}
	f, _, err := Parse([]byte(s.Text))
	if err != nil {
		return nil, err
	}
	stations := map[string]string{}
	for i, l := range f.Links {
		for j := range l.Ends {
			if e := l.end(j); !f.isSwitch(e) { // a port's own MAC sends nothing
				stations[strings.ToLower(f.macOf(end{e.node, f.face(i, j)}))] = e.node
			}
		}
	}
	for name, s := range f.Switches {
		stations[strings.ToLower(f.switchMAC(name))] = name
		for _, address := range s.Addresses {
			stations[address.Addr().String()] = name
		}
	}
	for name, node := range f.Nodes {
		for _, addresses := range node.Addresses {
			for _, address := range addresses {
				stations[address.Addr().String()] = name
			}
		}
	}
	return stations, nil
}
