package host_test

import (
	"testing"

	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/drivers/host"
	"github.com/linkspan/linkspan/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestConformance(t *testing.T) {
	f := driverstest.Local(host.Driver{}, nil, false)
	for i := range f.Sandboxes {
		f.Sandboxes[i].OfHost = true
	}
	driverstest.Run(t, f)
}
