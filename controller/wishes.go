package controller

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/sandbox"
)

// annotationSources, with the name of a port behind it (80/tcp), is the
// annotation of a container that says who may use that port: prefixes with
// commas between them. Docker's API has no other place for it.
const annotationSources = "linkspan.sources."

// wishesOf reads which ports a client wants published, and lists those that it
// has exposed. A range that the client spelled out is one wish again.
func wishesOf(ctr Container) (wishes []sandbox.Wish, exposed []string, err error) {
	sources, err := sourcesOf(ctr)
	if err != nil {
		return nil, nil, err
	}
	ports := make(map[apinetwork.Port]bool)
	for port := range ctr.Config.ExposedPorts {
		ports[port] = true
	}
	for port, bindings := range ctr.HostConfig.PortBindings {
		ports[port] = true
		if len(bindings) == 0 {
			bindings = []apinetwork.PortBinding{{}} // as Docker fills in an empty list
		}
		for _, binding := range bindings {
			wish, err := wishOf(port, binding)
			if err != nil {
				return nil, nil, err
			}
			wishes = append(wishes, wish)
		}
	}
	for port := range ports {
		exposed = append(exposed, port.String())
		if _, bound := ctr.HostConfig.PortBindings[port]; ctr.HostConfig.PublishAllPorts && !bound {
			wish, err := wishOf(port, apinetwork.PortBinding{})
			if err != nil {
				return nil, nil, err
			}
			wishes = append(wishes, wish)
		}
	}
	for i, w := range wishes {
		wishes[i].Sources = sources[fmt.Sprintf("%d/%s", w.Port, w.Protocol)]
	}
	slices.Sort(exposed)
	return mergeWishes(wishes), exposed, nil
}

func sourcesOf(ctr Container) (map[string][]netip.Prefix, error) {
	sources := make(map[string][]netip.Prefix)
	for key, list := range ctr.HostConfig.Annotations {
		port, found := strings.CutPrefix(key, annotationSources)
		if !found {
			continue
		}
		for text := range strings.SplitSeq(list, ",") {
			source, err := sandbox.ParseSource(strings.TrimSpace(text))
			if err != nil {
				return nil, err
			}
			sources[port] = append(sources[port], source)
		}
	}
	return sources, nil
}

func wishOf(port apinetwork.Port, binding apinetwork.PortBinding) (sandbox.Wish, error) {
	w := sandbox.Wish{Protocol: string(port.Proto()), Port: port.Num(), Count: 1, Host: binding.HostIP.Unmap()}
	if !sandbox.KnownProtocol(w.Protocol) {
		return w, linkspan.Errorf(linkspan.ErrInvalid, "invalid port specification: %q: protocol %q is not tcp, udp or sctp", port, w.Protocol)
	}
	if w.Port == 0 {
		return w, linkspan.Errorf(linkspan.ErrInvalid, "invalid port specification: %q: a port is a number from 1 to 65535", port)
	}
	if binding.HostPort == "" || binding.HostPort == "0" {
		return w, nil
	}
	var err error
	if w.First, w.Last, err = sandbox.ParseRange(binding.HostPort); err != nil {
		return w, linkspan.Errorf(linkspan.ErrInvalid, "invalid port specification: %q: %w", binding.HostPort, err)
	}
	return w, nil
}

// mergeWishes joins wishes for one host port each that follow each other.
func mergeWishes(wishes []sandbox.Wish) []sandbox.Wish {
	slices.SortFunc(wishes, func(a, b sandbox.Wish) int {
		return cmp.Or(
			strings.Compare(a.Protocol, b.Protocol), a.Host.Compare(b.Host),
			cmp.Compare(int(a.First)-int(a.Port), int(b.First)-int(b.Port)), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Last, b.Last),
		)
	})
	var merged []sandbox.Wish
	for _, w := range wishes {
		n := len(merged) - 1
		if n >= 0 && fixed(merged[n]) && fixed(w) && follows(merged[n], w) {
			merged[n].Count += w.Count
			merged[n].Last = w.Last
			continue
		}
		merged = append(merged, w)
	}
	return merged
}

func fixed(w sandbox.Wish) bool {
	return w.First != 0 && int(w.Last)-int(w.First)+1 == int(w.Count)
}

func follows(w, next sandbox.Wish) bool {
	return w.Protocol == next.Protocol && w.Host == next.Host && slices.Equal(w.Sources, next.Sources) &&
		int(w.First)+int(w.Count) == int(next.First) && int(w.Port)+int(w.Count) == int(next.Port)
}

// portMap is what is published in the words of the Docker Engine API, with the
// ports that are exposed and no more.
func portMap(exposed []string, ports []sandbox.Port) apinetwork.PortMap {
	m := apinetwork.PortMap{}
	for _, text := range exposed {
		if port, err := apinetwork.ParsePort(text); err == nil {
			m[port] = nil
		}
	}
	for _, p := range ports {
		for i := range int(p.Count) {
			port, ok := apinetwork.PortFrom(p.To.Port()+uint16(i), apinetwork.IPProtocol(p.Protocol))
			if ok {
				m[port] = append(m[port], bindingOf(p, i))
			}
		}
	}
	for port := range maps.Keys(m) {
		slices.SortStableFunc(m[port], func(a, b apinetwork.PortBinding) int {
			return cmp.Or(cmp.Compare(addressClass(a.HostIP), addressClass(b.HostIP)), strings.Compare(a.HostPort, b.HostPort), a.HostIP.Compare(b.HostIP))
		})
	}
	return m
}

func addressClass(a netip.Addr) int { return a.BitLen() }

// bindingOf is the host's side of one port. What is routed has none.
func bindingOf(p sandbox.Port, i int) apinetwork.PortBinding {
	binding := apinetwork.PortBinding{HostIP: p.Host}
	if !p.Routed {
		binding.HostPort = strconv.Itoa(int(p.First) + i)
	}
	return binding
}
