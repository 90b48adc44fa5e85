package bench

import (
	"net/http"
	"testing"
)

// crowd measures joins, leaves and starts on a network that has many endpoints
// already, beside one that has none.
func crowd(t *testing.T) []figure {
	m := machines(t, 2)
	quiet, crowded := start(t, m[0]), start(t, m[1])
	var webs [2]string
	for i, e := range []*engine{quiet, crowded} {
		e.network(t, "lab", "10.76.0.0/24")
		e.network(t, "side", "10.78.0.0/16")
		e.network(t, "both", "10.79.0.0/24", "fd79::/64")
		webs[i] = e.up(t, "web")
	}
	crowded.many(t, "other", "side", size(2, 400))
	var join, leave [2]sample
	var dual sample
	moves := func(e *engine, web, network string, join, leave *sample) {
		join.took(func() { e.call(t, http.MethodPost, "/networks/"+network+"/connect", object{"Container": web}, nil) })
		leave.took(func() {
			e.call(t, http.MethodPost, "/networks/"+network+"/disconnect", object{"Container": web}, nil)
		})
	}
	for range size(1, 60) {
		for i, e := range []*engine{quiet, crowded} {
			moves(e, webs[i], "side", &join[i], &leave[i])
		}
		moves(quiet, webs[0], "both", &dual, new(sample))
	}
	figures := []figure{
		times("join at 400 endpoints, against 0", join[1], join[0], 1.2),
		times("leave at 400 endpoints, against 0", leave[1], leave[0], 1.2),
		times("join with both families, against IPv4 alone", dual, join[0], 1.4),
		atMost("join", join[0], 2),
		atMost("leave", leave[0], 2),
	}
	crowded.many(t, "further", "side", size(1, 100))
	s := starts(t, size(1, 30), "side", variant{crowded, nil, nil}, variant{crowded, thirtyTwo(), nil})
	return append(figures, atMost("start with 32 ports beside 500 containers", s[1], 30), times("the same, against no ports", s[1], s[0], 1.2))
}
