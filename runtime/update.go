package runtime

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
)

// Update changes the limits and the restart policy of a container, at once if
// it runs. What is zero in the request stays as it is. Warnings are as with
// Create.
func (r *Runtime) Update(_ context.Context, ref string, q container.UpdateConfig) ([]string, error) {
	e, err := r.find(ref)
	if err != nil {
		return nil, err
	}
	e.verb.Lock()
	defer e.verb.Unlock()
	c := e.get()
	refuse := func(err error) error { return fmt.Errorf("Cannot update container %s: %w", c.ID, err) } //nolint:staticcheck // Docker's words
	if e.isRemoved() || isStatus(c, container.StateRemoving, container.StateDead) {
		return nil, refuse(linkspan.Errorf(linkspan.ErrConflict, "container is marked for removal and cannot be \"update\""))
	}
	host := *c.HostConfig
	merge(&host.Resources, q.Resources)
	if q.RestartPolicy.Name != "" {
		if host.AutoRemove && !q.RestartPolicy.IsNone() {
			return nil, refuse(linkspan.Errorf(linkspan.ErrConflict, "Restart policy cannot be updated because AutoRemove is enabled for the container"))
		}
		host.RestartPolicy = q.RestartPolicy
	}
	if err := container.ValidateRestartPolicy(host.RestartPolicy); err != nil {
		return nil, refuse(linkspan.Errorf(linkspan.ErrInvalid, "%w", err))
	}
	limits, err := limitsOf(&host)
	if err == nil {
		err = r.cgroups.Check(limits)
	}
	if err != nil {
		return nil, refuse(err)
	}
	if c.State.Running() {
		if err := r.cgroups.Update(c.group(), limits); err != nil {
			return nil, refuse(err)
		}
	}
	c.HostConfig = &host
	if err := r.saveRecord(c); err != nil {
		return nil, refuse(err)
	}
	e.update(func(c *Container) { c.HostConfig = &host })
	r.event(c, "update")
	return r.warningsFor(&host), nil
}

// merge puts in what was given.
func merge(into *container.Resources, q container.Resources) {
	// The two ways to say how much processor time there may be exclude each
	// other: the later word counts.
	if q.NanoCPUs != 0 {
		into.CPUPeriod, into.CPUQuota = 0, 0
	}
	if q.CPUPeriod != 0 || q.CPUQuota != 0 {
		into.NanoCPUs = 0
	}
	for _, n := range []struct {
		into  *int64
		given int64
	}{
		{&into.CPUShares, q.CPUShares},
		{&into.Memory, q.Memory},
		{&into.NanoCPUs, q.NanoCPUs},
		{&into.CPUPeriod, q.CPUPeriod},
		{&into.CPUQuota, q.CPUQuota},
		{&into.CPURealtimePeriod, q.CPURealtimePeriod},
		{&into.CPURealtimeRuntime, q.CPURealtimeRuntime},
		{&into.MemoryReservation, q.MemoryReservation},
		{&into.MemorySwap, q.MemorySwap},
	} {
		if n.given != 0 {
			*n.into = n.given
		}
	}
	if q.BlkioWeight != 0 {
		into.BlkioWeight = q.BlkioWeight
	}
	if q.CpusetCpus != "" {
		into.CpusetCpus = q.CpusetCpus
	}
	if q.CpusetMems != "" {
		into.CpusetMems = q.CpusetMems
	}
	if q.PidsLimit != nil {
		limit := max(*q.PidsLimit, 0) // Docker's way to say that there is none
		into.PidsLimit = &limit
	}
}
