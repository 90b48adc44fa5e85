package main

import (
	"context"
	"net"

	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/store/cluster"
)

// nodeSource knows the hosts of a cluster; *cluster.Cluster is one.
type nodeSource interface {
	Self() cluster.Member
	Members() []cluster.Member
	Follow(ctx context.Context, changed func(cluster.Change))
}

var _ nodeSource = (*cluster.Cluster)(nil)

// followNodes tells of the hosts of a cluster, whenever they change, until ctx
// ends.
func followNodes(ctx context.Context, source nodeSource, tell func([]wire.Node)) {
	source.Follow(ctx, func(change cluster.Change) {
		if !change.Members {
			return
		}
		var nodes []wire.Node
		for _, member := range source.Members() {
			node := wire.Node{Address: member.Advertise, BindAddress: member.VTEP.String(), Self: member.ID == source.Self().ID}
			if host, _, err := net.SplitHostPort(member.Advertise); err == nil {
				node.Address = host
			}
			nodes = append(nodes, node)
		}
		tell(nodes)
	})
}
