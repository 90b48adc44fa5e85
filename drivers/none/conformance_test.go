package none_test

import (
	"testing"

	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/drivers/none"
	"github.com/linkspan/linkspan/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestConformance(t *testing.T) {
	driverstest.Run(t, driverstest.Local(none.Driver{}, nil, false))
}
