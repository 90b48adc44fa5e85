package kernel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

// TestSysctlsOfManyNamespaces reads and writes side by side, many more times
// than one tree of names is used for.
func TestSysctlsOfManyNamespaces(t *testing.T) {
	nstest.New(t) // which looks afterwards at what is left
	h, err := kernel.Open()
	ok(t, err)
	const key = "net/ipv4/ip_default_ttl"
	names := make([]string, 4)
	for i := range names {
		names[i] = fmt.Sprint("box", i)
		ok(t, h.PinNetns(names[i]))
	}
	before := trees(t)
	var all sync.WaitGroup
	for i, name := range names {
		for j := range 2 {
			all.Go(func() {
				for k := range 60 {
					want := fmt.Sprint(64 + i)
					if j == 0 {
						if err := h.WriteSysctl(name, key, want); err != nil {
							t.Error(err)
						}
						continue
					}
					if got, err := h.ReadSysctl(name, key); err != nil || got != want && got != "64" {
						t.Errorf("reading %d of %s in %s: %q, %v; want 64 or %s", k, key, name, got, err, want)
					}
				}
			})
		}
	}
	all.Wait()
	for i, name := range names {
		if got, err := h.ReadSysctl(name, key); err != nil || got != fmt.Sprint(64+i) {
			t.Errorf("%s in %s is %q, %v; want %d", key, name, got, err, 64+i)
		}
		ok(t, h.UnpinNetns(name))
	}
	if trees(t) <= before {
		t.Error("no tree is open: what is counted is nothing")
	}
	ok(t, h.Close())
	if after := trees(t); after != before {
		t.Errorf("%d trees are open after Close, %d were before", after, before)
	}
}

// trees counts descriptors of a procfs that is mounted nowhere.
func trees(t *testing.T) (count int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	ok(t, err)
	for _, entry := range entries {
		fd := filepath.Join("/proc/self/fd", entry.Name())
		var st unix.Statfs_t
		if target, err := os.Readlink(fd); err == nil && target == "/" && unix.Statfs(fd, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC {
			count++
		}
	}
	return count
}

// TestSysctlsWithoutMounting is for a daemon that may not mount anything: it
// must do with /proc.
func TestSysctlsWithoutMounting(t *testing.T) {
	h, err := kernel.Open()
	ok(t, err)
	defer h.Close()
	before := trees(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is thrown away
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var caps [2]unix.CapUserData
		if err := unix.Capget(&header, &caps[0]); err != nil {
			done <- err
			return
		}
		caps[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
		if err := unix.Capset(&header, &caps[0]); err != nil {
			done <- err
			return
		}
		boot, err := h.ReadSysctl("", "kernel/random/boot_id")
		if err == nil && strings.Count(boot, "-") != 4 {
			err = fmt.Errorf("the boot has the identity %q", boot)
		}
		done <- err
	}()
	ok(t, <-done)
	if now := trees(t); now != before {
		t.Error("a tree was made: the test shows nothing")
	}
}
