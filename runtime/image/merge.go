package image

import (
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
)

// Merge fills in what a container's configuration leaves to its image.
func (i Image) Merge(c *container.Config) error {
	from := i.Spec.Config
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = slices.Clone(from.Cmd)
		}
		if c.Entrypoint == nil {
			c.Entrypoint = slices.Clone(from.Entrypoint)
		}
	}
	// The command line has no other way to ask for no entry point.
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
	c.Env = mergeEnv(from.Env, c.Env)
	c.Labels = merged(from.Labels, c.Labels)
	c.Volumes = merged(from.Volumes, c.Volumes)
	ports := network.PortSet{}
	for text := range from.ExposedPorts {
		port, err := network.ParsePort(text)
		if err != nil {
			return linkspan.Errorf(linkspan.ErrInvalid, "image %s exposes port %q: %w", i.ID.Encoded()[:12], text, err)
		}
		ports[port] = struct{}{}
	}
	c.ExposedPorts = merged(ports, c.ExposedPorts)
	if c.User == "" {
		c.User = from.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = from.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = from.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = from.Shell
	}
	c.Healthcheck = mergeHealth(from.Healthcheck, c.Healthcheck)
	return nil
}

// merged is nil if there is nothing in either.
func merged[M ~map[K]V, K comparable, V any](base, over M) M {
	if len(base)+len(over) == 0 {
		return nil
	}
	if len(base) == 0 {
		return over
	}
	all := maps.Clone(base)
	maps.Copy(all, over)
	return all
}

// mergeEnv keeps the image's variables in front, but for those given anew.
func mergeEnv(base, over []string) []string {
	given := map[string]bool{}
	for _, kv := range over {
		name, _, _ := strings.Cut(kv, "=")
		given[name] = true
	}
	env := slices.Clone(over)
	for _, kv := range base {
		if name, _, _ := strings.Cut(kv, "="); !given[name] {
			env = append(env, kv)
		}
	}
	return env
}

// mergeHealth takes each setting that is not given from the image.
func mergeHealth(base, over *container.HealthConfig) *container.HealthConfig {
	if base == nil || over == nil {
		if over == nil {
			return base
		}
		return over
	}
	all := *over
	if len(all.Test) == 0 {
		all.Test = base.Test
	}
	for _, pair := range [][2]*int64{
		{(*int64)(&all.Interval), (*int64)(&base.Interval)},
		{(*int64)(&all.Timeout), (*int64)(&base.Timeout)},
		{(*int64)(&all.StartPeriod), (*int64)(&base.StartPeriod)},
		{(*int64)(&all.StartInterval), (*int64)(&base.StartInterval)},
	} {
		if *pair[0] == 0 {
			*pair[0] = *pair[1]
		}
	}
	if all.Retries == 0 {
		all.Retries = base.Retries
	}
	return &all
}
