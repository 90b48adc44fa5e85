package nftables_test

import (
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

const patience = 400 * time.Millisecond // after which a question that should be stopped counts as stopped

func inside(t testing.TB, m *nstest.Machine, fn func() error) {
	t.Helper()
	if err := m.Host().Inside("", fn); err != nil {
		t.Fatal(err)
	}
}
