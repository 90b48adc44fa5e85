package host_test

import (
	"testing"

	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/drivers/host"
	"github.com/linkspan/linkspan/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestConformance(t *testing.T) {
	driverstest.Run(t, driverstest.Local(host.Driver{}, nil, false))
}
