package controller

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
	"github.com/linkspan/linkspan/dns/resolvconf"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// hostFiles are files of the host that those of a sandbox are made from. They
// are read before the store is locked.
type hostFiles struct {
	hosts    []byte
	servers  nameServers // for a stack of its own
	own      nameServers // for the host's stack
	hostname string
	ipv6     bool // the kernel has IPv6 at all
}

// nameServers is a resolv.conf of the host.
type nameServers struct {
	path string
	text []byte
}

func (c *Controller) readHostFiles() (hostFiles, error) {
	var host hostFiles
	var err error
	if host.hosts, err = os.ReadFile("/etc/hosts"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return host, fmt.Errorf("reading the host's own names: %w", err)
	}
	if host.hostname, err = os.Hostname(); err != nil {
		return host, fmt.Errorf("reading the host's own name: %w", err)
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		host.ipv6 = true
	}
	if host.own, err = c.readOwnServers(); err != nil {
		return host, err
	}
	host.servers, err = c.readServers()
	return host, err
}

// readServers reads what a sandbox with a stack of its own starts from.
func (c *Controller) readServers() (nameServers, error) {
	if c.o.Defaults.ResolvConf != "" {
		return c.readOwnServers()
	}
	path, text, err := resolvconf.Source(os.ReadFile)
	return nameServers{path, text}, err
}

// readOwnServers reads what the host itself goes by.
func (c *Controller) readOwnServers() (nameServers, error) {
	path := cmp.Or(c.o.Defaults.ResolvConf, resolvconf.Path)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nameServers{}, fmt.Errorf("reading the host's name servers: %w", err)
	}
	return nameServers{path, text}, nil
}

// followHost keeps all resolvers, and the files that nobody has edited, in step
// with the host's resolv.conf: a laptop that changes networks takes its
// containers along.
func (c *Controller) followHost(ctx context.Context) error {
	paths := []string{resolvconf.Path, resolvconf.PathBehindStub}
	if c.o.Defaults.ResolvConf != "" {
		paths = []string{c.o.Defaults.ResolvConf}
	}
	last, err := c.readServers()
	if err != nil {
		return err
	}
	stop, err := resolvconf.Watch(ctx, func() {
		now, failed := c.readServers()
		if failed != nil || now.path == last.path && bytes.Equal(now.text, last.text) {
			c.note("following the host's name servers", failed)
			return
		}
		last = now
		c.refreshAll()
	}, paths...)
	if err != nil {
		return err
	}
	c.unfollow = stop
	return nil
}

// refreshAll brings names and files of all live containers up to date.
func (c *Controller) refreshAll() {
	var owners []linkspan.ID
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Sandboxes.All() {
			if row.Phase == store.Ready {
				owners = append(owners, row.Value.Owner)
			}
		}
	})
	for _, owner := range owners {
		c.refresh(owner)
	}
	c.updateHostResolver()
}

// refresh brings the names and files of a live container up to date. Nothing
// of it needs the kernel.
func (c *Controller) refresh(owner linkspan.ID) {
	host, err := c.readHostFiles()
	if err != nil {
		c.note("reading the host's files", err)
		return
	}
	if err := c.rewriteFiles(owner, host); err != nil && !errors.Is(err, linkspan.ErrNotFound) {
		c.note("bringing the files of container "+owner.Short()+" up to date", err)
	}
	c.announceNames(owner)
}

// rewriteFiles brings the bound files of a live container up to date, one
// caller at a time. A file that somebody has edited is theirs, as its first
// lines promise; only in hosts, which promises nothing, lines of ours come and
// go among theirs, as with Docker.
func (c *Controller) rewriteFiles(owner linkspan.ID, host hostFiles) error {
	var q consequences
	var err error
	read := func() { c.o.Store.View(func(t store.Tables) { q, err = c.consequencesOf(t, owner, host) }) }
	if read(); err != nil {
		return err
	}
	defer c.alone(q.live.Value.ID)()
	if read(); err != nil { // as it is now that nobody else writes
		return err
	}
	s := q.live.Value
	for path, text := range map[string]string{s.Hosts(): q.files.Hosts, s.ResolvConf(): q.files.ResolvConf} {
		was, planned := plannedText(q.live.Plan, path)
		if !planned || was == text {
			continue
		}
		written, err := rewrite(path, was, text, path == s.Hosts())
		if err != nil {
			return fmt.Errorf("bringing a file up to date: %w", err)
		}
		if written {
			if err := c.replanText(s, path, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// rewrite turns a file from one text of ours into the next, and tells whether
// the next one counts from now on.
func rewrite(path, was, text string, shared bool) (bool, error) {
	now, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	switch {
	case string(now) == text: // written before a crash, and not noted
		return true, nil
	case string(now) != was && !shared:
		return false, nil
	case string(now) != was:
		text = string(dns.MergeHosts(now, []byte(was), []byte(text)))
	}
	// In place: the inode is what the container sees.
	return true, os.WriteFile(path, []byte(text), 0o644)
}

func plannedText(plan op.Plan, path string) (string, bool) {
	for _, step := range plan {
		if file, ok := step.Op.(op.WriteFile); ok && file.Path == path {
			return file.Text, true
		}
	}
	return "", false
}

// replanText notes the text that a file has from now on.
func (c *Controller) replanText(s sandbox.Sandbox, path, text string) error {
	return c.o.Store.Defer(func(t store.Tables) error {
		row, ok := t.Sandboxes.Get(s.ID)
		if !ok {
			return stoppedMeanwhile(s)
		}
		row.Plan = slices.Clone(row.Plan)
		for i, step := range row.Plan {
			if file, ok := step.Op.(op.WriteFile); ok && file.Path == path {
				file.Text = text
				row.Plan[i].Op = file
			}
		}
		t.Sandboxes.Put(s.ID, row)
		return nil
	})
}

// alone waits until nobody else writes the files of a sandbox, and returns the
// function that lets the next one in.
func (c *Controller) alone(id linkspan.ID) (done func()) {
	c.mu.Lock()
	lock := c.writing[id]
	if lock == nil {
		lock = new(sync.Mutex)
		c.writing[id] = lock
	}
	c.mu.Unlock()
	lock.Lock()
	return lock.Unlock
}
