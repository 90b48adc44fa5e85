package runtime

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
)

// Links is what a runtime knows of links on the default bridge (docker run
// --link): they give containers second names, and environments of others
// variables.
type Links interface {
	// Linked returns the links of a container.
	Linked(owner linkspan.ID) []Link
	// LinkTarget returns the container that a link's name leads to.
	LinkTarget(name string) (linkspan.ID, bool)
}

// Link is a link of one container to another.
type Link struct {
	Target linkspan.ID
	Name   string     // that it gives the target: web/db
	Addr   netip.Addr // of the target; zero: it does not run
}

// linkEnvironment tells a container where its links lead and what environment
// is there, in variables that begin with the link's alias: they are how programs
// found each other before there were names (Docker, "Legacy container links").
func (r *Runtime) linkEnvironment(c Container) (env []string) {
	if r.options.Links == nil {
		return nil
	}
	for _, l := range r.options.Links.Linked(c.ID) {
		if target, err := r.Get(string(l.Target)); err == nil && l.Addr.IsValid() {
			env = append(env, linkVariables(l, target)...)
		}
	}
	return env
}

func linkVariables(l Link, target Container) (env []string) {
	_, alias, _ := strings.Cut(l.Name, "/")
	prefix := strings.ReplaceAll(strings.ToUpper(alias), "-", "_")
	set := func(name, format string, args ...any) {
		env = append(env, prefix+name+"="+fmt.Sprintf(format, args...))
	}
	at := func(p apinetwork.Port) string {
		return string(p.Proto()) + "://" + l.Addr.String() + ":" + p.Port()
	}
	for i, run := range runsOf(target) {
		if i == 0 {
			set("_PORT", "%s", at(run[0]))
		}
		for _, p := range run {
			of := portVariable(p)
			set(of, "%s", at(p))
			set(of+"_ADDR", "%s", l.Addr)
			set(of+"_PORT", "%s", p.Port())
			set(of+"_PROTO", "%s", p.Proto())
		}
		if first, last := run[0], run[len(run)-1]; first != last {
			of := portVariable(first)
			set(of+"_START", "%s", at(first))
			set(of+"_PORT_START", "%s", first.Port())
			set(of+"_END", "%s", at(last))
			set(of+"_PORT_END", "%s", last.Port())
		}
	}
	set("_NAME", "/%s", l.Name)
	for _, kv := range target.Config.Env {
		// What every image sets says nothing about this container.
		if key, value, given := strings.Cut(kv, "="); given && key != "HOME" && key != "PATH" {
			set("_ENV_"+key, "%s", value)
		}
	}
	return env
}

func portVariable(p apinetwork.Port) string {
	return "_PORT_" + p.Port() + "_" + strings.ToUpper(string(p.Proto()))
}

// runsOf are the exposed ports of a container, TCP first, those together that
// follow each other.
func runsOf(c Container) (runs [][]apinetwork.Port) {
	ports := make([]apinetwork.Port, 0, len(c.Config.ExposedPorts))
	for p := range c.Config.ExposedPorts {
		ports = append(ports, p)
	}
	rank := func(p apinetwork.Port) string {
		if p.Proto() == "tcp" {
			return ""
		}
		return string(p.Proto())
	}
	slices.SortFunc(ports, func(a, b apinetwork.Port) int {
		return cmp.Or(strings.Compare(rank(a), rank(b)), cmp.Compare(a.Num(), b.Num()))
	})
	for i, p := range ports {
		if i > 0 && p.Proto() == ports[i-1].Proto() && p.Num() == ports[i-1].Num()+1 {
			runs[len(runs)-1] = append(runs[len(runs)-1], p)
			continue
		}
		runs = append(runs, []apinetwork.Port{p})
	}
	return runs
}
