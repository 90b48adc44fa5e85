package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkRun is create, start, wait and remove, without the cost of a
// network. The custom metrics are medians in milliseconds; that of unshare(1),
// taken in turns, is what a machine as busy as this one asks for the namespaces
// alone.
func BenchmarkRun(b *testing.B) {
	r := open(b)
	var total, starting, floor []time.Duration
	for b.Loop() {
		begin := time.Now()
		if err := exec.Command("unshare", "-mpuiC", "--fork", "--mount-proc", "--root=/", "/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
		floor = append(floor, time.Since(begin))
		begin = time.Now()
		c := r.create(b, "", func(q *Request) { q.Config.Cmd = []string{"/bin/true"} })
		created := time.Now()
		if err := r.Start(b.Context(), string(c.ID)); err != nil {
			b.Fatal(err)
		}
		starting = append(starting, time.Since(created))
		if state := r.wait(b, c); state.ExitCode != 0 {
			b.Fatalf("%+v", state)
		}
		if err := r.Remove(b.Context(), string(c.ID), RemoveOptions{}); err != nil {
			b.Fatal(err)
		}
		total = append(total, time.Since(begin))
	}
	b.ReportMetric(median(floor), "unshare-p50-ms")
	b.ReportMetric(median(starting), "start-p50-ms")
	b.ReportMetric(median(total), "run-p50-ms")
}

func median(list []time.Duration) float64 {
	slices.Sort(list)
	return float64(list[len(list)/2].Microseconds()) / 1000
}

// BenchmarkShimMemory reports the memory of the shims of idle containers: PSS
// shares out the pages of the binary, which all shims have in common.
func BenchmarkShimMemory(b *testing.B) {
	r := open(b)
	const n = 10
	var shims []int
	var alone, sum float64
	for range n {
		c := r.start(b, "", func(q *Request) { q.Config.Cmd = []string{"sleep", "1000"} })
		shims = append(shims, parent(b, r, c))
		if len(shims) == 1 {
			time.Sleep(time.Second) // the shim gives memory back when all is quiet
			alone = pss(b, shims[0])
		}
	}
	time.Sleep(time.Second)
	for _, pid := range shims {
		sum += pss(b, pid)
	}
	for b.Loop() {
		pss(b, shims[0])
	}
	b.ReportMetric(alone, "PSS-alone-KiB")
	b.ReportMetric(sum/n, "PSS-of-ten-KiB")
}

// parent returns the shim of a container.
func parent(tb testing.TB, r *bench, c Container) int {
	tb.Helper()
	c, err := r.Get(string(c.ID))
	if err != nil {
		tb.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.State.Pid))
	if err != nil {
		tb.Fatal(err)
	}
	var state string
	var pid int
	_, after, _ := strings.Cut(string(text), ") ")
	if _, err := fmt.Sscan(after, &state, &pid); err != nil {
		tb.Fatal(err)
	}
	return pid
}

func pss(tb testing.TB, pid int) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "Pss: %f kB", &kib); err == nil {
			return kib
		}
	}
	tb.Fatal("no Pss in smaps_rollup")
	return 0
}
