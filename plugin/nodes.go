package plugin

import (
	"context"
	"maps"
	"slices"

	"github.com/linkspan/linkspan/plugin/wire"
)

// Nodes says which nodes the cluster has now. Drivers whose connectivity is global
// are told of those that came and went; one that is met for the first time, or was
// started again, is told of all. Nodes does not wait for that.
func (d *Directory) Nodes(nodes []wire.Node) {
	d.mu.Lock()
	d.nodes = slices.Clone(nodes)
	lines := slices.Collect(maps.Values(d.lines))
	d.mu.Unlock()
	for _, line := range lines {
		line.tellNodes()
	}
}

// tellNodes has the plugin told what it does not know of the nodes.
func (l *Line) tellNodes() {
	about, known := l.Known()
	if known && about.Network.ConnectivityScope == "global" {
		l.directory.background(func() { l.syncNodes(l.directory.life) })
	}
}

// syncNodes brings what the plugin knows of the nodes, as far as it was told in
// its present life, to what there is.
func (l *Line) syncNodes(ctx context.Context) {
	l.telling.Lock()
	defer l.telling.Unlock()
	l.directory.mu.Lock()
	nodes := l.directory.nodes
	l.directory.mu.Unlock()
	l.mu.Lock()
	told := slices.Collect(maps.Keys(l.nodes))
	l.mu.Unlock()
	for _, node := range told {
		if !slices.Contains(nodes, node) && l.tell(ctx, "DiscoverDelete", node) {
			l.mu.Lock()
			delete(l.nodes, node)
			l.mu.Unlock()
		}
	}
	for _, node := range nodes {
		if !slices.Contains(told, node) && l.tell(ctx, "DiscoverNew", node) {
			l.mu.Lock()
			if l.nodes == nil {
				l.nodes = make(map[wire.Node]bool)
			}
			l.nodes[node] = true
			l.mu.Unlock()
		}
	}
}

// tell returns whether the plugin has heard it; one that knows nothing of nodes
// has.
func (l *Line) tell(ctx context.Context, method string, node wire.Node) bool {
	message := wire.Discovery{DiscoveryType: wire.NodeDiscovery, DiscoveryData: node}
	err := l.Brief(ctx, "NetworkDriver."+method, message, nil)
	if err != nil && !Unsupported(err) {
		l.directory.o.Logf("telling plugin %s of node %s: %v", l.name, node.Address, err)
	}
	return err == nil || Refused(err)
}
