package main

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/store/cluster"
)

// clusterNews are those of a cluster of two hosts.
type clusterNews []cluster.Change

func (clusterNews) Self() cluster.Member { return cluster.Member{ID: "a"} }

func (clusterNews) Members() []cluster.Member {
	return []cluster.Member{
		{ID: "a", Advertise: "192.0.2.1:2376", VTEP: netip.MustParseAddr("198.51.100.1")},
		{ID: "b", Advertise: "192.0.2.2:2376", VTEP: netip.MustParseAddr("198.51.100.2")},
	}
}

func (c clusterNews) Follow(_ context.Context, changed func(cluster.Change)) {
	for _, change := range c {
		changed(change)
	}
}

func TestNodesOfPlugins(t *testing.T) {
	told := 0
	followNodes(t.Context(), clusterNews{{Networks: true}, {Members: true}, {Store: true}}, func(nodes []wire.Node) {
		told++
		want := []wire.Node{{Address: "192.0.2.1", BindAddress: "198.51.100.1", Self: true}, {Address: "192.0.2.2", BindAddress: "198.51.100.2"}}
		if !slices.Equal(nodes, want) {
			t.Errorf("nodes %+v, want %+v", nodes, want)
		}
	})
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}
