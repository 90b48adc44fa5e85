package container_test

import (
	"testing"

	"github.com/linkspan/linkspan/drivers/container"
	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestConformance(t *testing.T) {
	driverstest.Run(t, driverstest.Local(container.Driver{}, nil, false))
}
