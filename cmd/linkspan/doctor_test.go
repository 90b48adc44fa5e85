package main

import (
	"testing"
)

func TestDoctor(t *testing.T) {
	broken := `{"Findings":[{"Reason":"ip-forward","Severity":"broken","What":"it is 0","So":"nothing passes","Remedy":"sysctl -w it=1"}]}`
	daemon := newFake(t, map[string]answer{
		"GET /linkspan/v1/doctor":  {body: broken},
		"POST /linkspan/v1/doctor": {body: `{"Findings":[]}`},
	})
	if got := invoke(t, daemon.host, "", "doctor"); got.code != 1 || got.err != "" ||
		got.out != "broken (ip-forward): it is 0\n  so:     nothing passes\n  remedy: sysctl -w it=1\n" {
		t.Errorf("got %+v", got)
	}
	if got := invoke(t, daemon.host, "", "doctor", "--format", "json"); got.code != 1 ||
		got.out != `{"Reason":"ip-forward","Severity":"broken","What":"it is 0","So":"nothing passes","Remedy":"sysctl -w it=1"}`+"\n" {
		t.Errorf("got %+v", got)
	}
	if got := invoke(t, daemon.host, "", "doctor", "--repair"); got.code != 0 || got.out != "Nothing is in the way.\n" {
		t.Errorf("got %+v", got)
	}
	for _, line := range [][]string{{"doctor", "--repair", "--local"}, {"doctor", "--format", "xml"}} {
		if got := invoke(t, daemon.host, "", line...); got.code != 1 || got.err == "" {
			t.Errorf("%v: %+v", line, got)
		}
	}
}
