package runtime

import (
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan/internal/nstest"
)

func TestStats(t *testing.T) {
	b := open(t)
	c := b.start(t, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 300", host(func(h *container.HostConfig) { h.Memory = 64 << 20 }))
	var s container.StatsResponse
	if !nstest.Until(time.Minute, func() bool {
		var err error
		if s, err = b.Stats(t.Context(), c.Name); err != nil {
			t.Fatal(err)
		}
		return s.CPUStats.CPUUsage.TotalUsage > 0 && s.PidsStats.Current == 1
	}) {
		t.Errorf("stats %+v", s)
	}
	if s.ID != string(c.ID) || s.Name != "/"+c.Name || s.Read.IsZero() || s.MemoryStats.Usage == 0 || s.MemoryStats.Limit != 64<<20 ||
		s.CPUStats.SystemUsage == 0 || s.CPUStats.OnlineCPUs == 0 || len(s.MemoryStats.Stats) == 0 {
		t.Errorf("stats %+v", s)
	}
	if err := b.Kill(t.Context(), c.Name, ""); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Stats(t.Context(), c.Name); err != nil || !s.Read.IsZero() || s.PidsStats.Current != 0 || s.Name != "/"+c.Name {
		t.Errorf("of one that has ended: %v %+v", err, s)
	}
}

func TestUpdate(t *testing.T) {
	b := open(t)
	c := b.start(t, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; exec sleep 300", host(func(h *container.HostConfig) { h.Memory = 64 << 20 }))
	pids := int64(77)
	for _, memory := range []int64{256 << 20, 32 << 20} { // more than memory and swap were, and less
		_, err := b.Update(t.Context(), c.Name, container.UpdateConfig{
			Resources: container.Resources{Memory: memory, MemorySwap: memory, CPUShares: 512, CpusetCpus: "0", PidsLimit: &pids},
		})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := b.Stats(t.Context(), c.Name); err != nil || s.MemoryStats.Limit != uint64(memory) || s.PidsStats.Limit != 77 {
			t.Errorf("limits of the running container: %v %+v", err, s)
		}
	}
	if _, err := b.Update(t.Context(), c.Name, container.UpdateConfig{RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 1}}); err != nil {
		t.Fatal(err)
	}
	b.reopen(t)
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Resume()
	got, err := b.Get(string(c.ID))
	if h := got.HostConfig; err != nil || h.Memory != 32<<20 || h.CPUShares != 512 || h.CpusetCpus != "0" || *h.PidsLimit != 77 || h.RestartPolicy.MaximumRetryCount != 1 {
		t.Errorf("the record: %v %+v", err, h)
	}
	for _, test := range []struct {
		q    container.UpdateConfig
		text string
	}{
		{container.UpdateConfig{Resources: container.Resources{Memory: 1}}, "Minimum memory limit allowed is 6MB"},
		{container.UpdateConfig{RestartPolicy: container.RestartPolicy{Name: "nonsense"}}, "invalid restart policy"},
	} {
		if _, err := b.Update(t.Context(), c.Name, test.q); err == nil || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), "Cannot update container") {
			t.Errorf("%+v: %v", test.q, err)
		}
	}
}

func TestSize(t *testing.T) {
	b := open(t)
	layer := t.TempDir()
	c := b.create(t, "true", func(q *Request) { q.Rootfs, q.Lower = "", []string{layer} })
	if written, all, err := b.Size(t.Context(), c.Name, true); err != nil || written != 0 || all <= 0 {
		t.Errorf("before the start: %d %d %v", written, all, err)
	}
	d := b.start(t, "head -c 100000 /dev/zero >/tmp/x; ln /tmp/x /tmp/y")
	b.wait(t, d)
	if written, _, err := b.Size(t.Context(), d.Name, false); err != nil || written < 100_000 || written > 199_999 {
		t.Errorf("written %d %v", written, err)
	}
}
