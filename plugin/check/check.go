package check

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/wire"
)

// Grade says how a finding is meant.
type Grade string

// The grades of a finding.
const (
	OK     Grade = "ok"     // as the protocol says
	Note   Grade = "note"   // allowed, and worth knowing
	Broken Grade = "BROKEN" // an engine would fail or leak
)

// Finding is one thing that was tried.
type Finding struct {
	Grade Grade
	Call  string // "NetworkDriver.Join"
	Text  string
}

func (f Finding) String() string { return fmt.Sprintf("%-6s  %-36s  %s", f.Grade, f.Call, f.Text) }

// run is one test of one plugin.
type run struct {
	line   *plugin.Line
	socket string
	report func(Finding)
	broken int
}

// Run tries the plugin that listens on a unix socket, and reports each finding as
// it comes. It returns how many are Broken; an error says that the plugin could
// not be tried at all.
func Run(ctx context.Context, socket string, report func(Finding)) (broken int, err error) {
	name, ok := strings.CutSuffix(filepath.Base(socket), ".sock")
	if !ok {
		return 0, fmt.Errorf("%s is no plugin's socket: its name must end in .sock", socket)
	}
	directory := plugin.NewDirectory(plugin.Options{
		Sockets: []string{filepath.Dir(socket)}, Specs: []string{}, Deadline: 15 * time.Second,
	})
	defer directory.Close()
	r := &run{line: directory.Line(name), socket: socket, report: report}
	about, err := r.line.About(ctx)
	if err != nil {
		return 0, err
	}
	r.say(OK, "Plugin.Activate", "implements %s", strings.Join(about.Implements, ", "))
	for _, kind := range about.Implements {
		if kind != wire.NetworkDriver && kind != wire.IpamDriver {
			r.say(Note, "Plugin.Activate", "%s is not tried", kind)
		}
	}
	r.strangeCalls(ctx)
	if slices.Contains(about.Implements, wire.NetworkDriver) {
		r.network(ctx, about.Network)
	}
	if slices.Contains(about.Implements, wire.IpamDriver) {
		r.ipam(ctx, about.IPAM)
	}
	if err := r.line.Call(ctx, "Plugin.Activate", nil, nil); err != nil {
		r.say(Broken, "Plugin.Activate", "after all that it does not answer any more: %v", err)
	}
	return r.broken, nil
}

func (r *run) say(grade Grade, call, format string, args ...any) {
	if grade == Broken {
		r.broken++
	}
	r.report(Finding{grade, call, fmt.Sprintf(format, args...)})
}

// must makes a call that has to succeed.
func (r *run) must(ctx context.Context, call string, message, answer any) bool {
	start := time.Now()
	if err := r.line.Call(ctx, call, message, answer); err != nil {
		r.say(Broken, call, "%v", err)
		return false
	}
	r.say(OK, call, "answered in %s", time.Since(start).Round(10*time.Microsecond))
	return true
}

// optional makes a call that a driver may not know.
func (r *run) optional(ctx context.Context, call string, message any) {
	switch err := r.line.Call(ctx, call, message, nil); {
	case err == nil:
		r.say(OK, call, "supported")
	case plugin.Unsupported(err):
		r.say(Note, call, "not supported, which is allowed")
	case plugin.Refused(err):
		r.say(Note, call, "refused: %v", err)
	default:
		r.say(Broken, call, "%v", err)
	}
}

// answers makes a call that may be refused, but must be answered.
func (r *run) answers(ctx context.Context, call, when string, message any) {
	switch err := r.line.Call(ctx, call, message, nil); {
	case err == nil:
		r.say(OK, call, "%s: succeeds", when)
	case plugin.Refused(err):
		r.say(OK, call, "%s: refuses", when)
	default:
		r.say(Broken, call, "%s: %v", when, err)
	}
}

// strangeCalls are those that no driver knows.
func (r *run) strangeCalls(ctx context.Context) {
	const call = "NetworkDriver.NoSuchCall"
	switch err := r.line.Call(ctx, call, struct{}{}, nil); {
	case err == nil:
		r.say(Note, call, "an unknown call succeeds: an engine takes that for support of optional ones")
	case plugin.Refused(err):
		r.say(OK, call, "an unknown call is refused")
	default:
		r.say(Broken, call, "%v", err)
	}
	if status, err := postRaw(ctx, r.socket, "/NetworkDriver.Leave", "{"); err != nil {
		r.say(Broken, "NetworkDriver.Leave", "broken JSON: %v", err)
	} else {
		r.say(OK, "NetworkDriver.Leave", "broken JSON: status %d", status)
	}
}

func randomID() string {
	raw := make([]byte, 32)
	rand.Read(raw) // never fails: see crypto/rand.Read
	return hex.EncodeToString(raw)
}
