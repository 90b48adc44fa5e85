package bench

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
)

// lists measures long lists, and whether the next network costs more than the
// first.
func lists(t *testing.T) []figure {
	e := start(t, nstest.New(t))
	next := func() (s sample) {
		for range size(1, 30) {
			s.took(func() { e.network(t, "next", "10.250.0.0/24") })
			e.call(t, http.MethodDelete, "/networks/next", nil, nil)
		}
		return s
	}
	first := next()
	for i := range size(2, 300) {
		e.network(t, fmt.Sprint("old", i), fmt.Sprintf("10.%d.%d.0/24", i/250, i%250))
	}
	last := next()
	for i := 300; *full && i < 500; i++ {
		e.network(t, fmt.Sprint("old", i), fmt.Sprintf("10.%d.%d.0/24", i/250, i%250))
	}
	for i := range size(2, 1000) {
		e.create(t, fmt.Sprint("idle", i), "old0")
	}
	// Until the last byte is here: what a client makes of it is its own business.
	list := func(path string) (s sample) {
		for range size(1, 20) {
			s.took(func() { e.call(t, http.MethodGet, path, nil, nil) })
		}
		return s
	}
	return []figure{
		times("network create at 300 networks, against 0", last, first, 1.2),
		atMost("500 networks listed", list("/networks"), 20),
		atMost("1,000 containers listed", list("/containers/json?all=1"), 20),
	}
}
