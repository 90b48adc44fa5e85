package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin"
)

// Plugins are the lines to plugins, and where what goes wrong is noted.
type Plugins struct {
	*plugin.Directory
	Logf func(format string, args ...any)

	complaints sync.Map // error by name of the plugin that said it last
}

// party is the plugin of an op. Its exported fields are stored.
type party struct {
	Plugin string
	URL    string // where it listened when the op was planned: for the reader

	plugins *Plugins
}

// Party names the plugin.
func (p party) Party() string { return p.Plugin }

// Kinds returns the ops of this package, for the codec of plans.
func Kinds(plugins *Plugins) op.Kinds {
	way := party{plugins: plugins}
	return op.Kinds{
		"plugin-allocation": AllocateNetwork{party: way},
		"plugin-network":    CreateNetwork{party: way},
		"plugin-endpoint":   CreateEndpoint{party: way},
		"plugin-join":       Join{party: way},
		"plugin-outward":    ProgramExternal{party: way},
		"plugin-pool":       RequestPool{party: way},
		"plugin-address":    RequestAddress{party: way},
	}
}

func (p party) line() *plugin.Line { return p.plugins.Line(p.Plugin) }

// call makes a call that changes something at the plugin. If it is not known
// whether it did, it is taken back by undo; if that cannot be done either, the
// error is of kind op.ErrLeft.
func (p party) call(ctx context.Context, method string, request, answer any, undo func(context.Context) error) error {
	err := p.line().Call(ctx, method, request, answer)
	if err == nil || !plugin.InDoubt(err) {
		return err
	}
	return takenBack(ctx, err, undo)
}

// takenBack undoes what an error leaves in doubt, or what must not stay.
func takenBack(ctx context.Context, err error, undo func(context.Context) error) error {
	undoErr := undo(context.WithoutCancel(ctx))
	if undoErr == nil {
		return fmt.Errorf("%w; rolled back", err)
	}
	return op.Left(fmt.Errorf("%w; failed to roll back: %w", undoErr, err))
}

// release makes a call that takes something back. What the plugin refuses is
// taken for gone, and noted, and so is what it breaks down over twice: only a
// plugin that is away must be asked again.
func (p party) release(ctx context.Context, method string, request any) error {
	err := p.line().Brief(ctx, method, request, nil)
	if plugin.Crashed(err) { // whether it did what was asked is not known
		err = p.line().Brief(ctx, method, request, nil)
	}
	if plugin.Refused(err) || plugin.Crashed(err) {
		if !plugin.Unsupported(err) {
			p.plugins.Logf("%v: taken for done", err)
		}
		return nil
	}
	return err
}

// Check is content: what a plugin did only the plugin could tell, and the
// protocol has no question for it.
func (p party) Check(context.Context, *kernel.Host) error { return nil }

// said returns the command that makes a call.
func (p party) said(method string, request any) string {
	body, err := json.Marshal(request)
	if err != nil {
		body = []byte(err.Error()) // a request is made of strings; it cannot fail
	}
	base := p.URL
	where := ""
	if path, isUnix := strings.CutPrefix(p.URL, "unix://"); isUnix {
		base, where = "http://plugin", " --unix-socket "+quote(path)
	} else if u, err := url.Parse(p.URL); err == nil && u.Scheme == "tcp" {
		base = "http://" + u.Host
	}
	return fmt.Sprintf("curl -fsS%s -d %s %s/%s", where, quote(string(body)), strings.TrimSuffix(base, "/"), method)
}

// quote makes any text one word of sh.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// answerIn returns the commented answer, for the reader of a plan that was done.
func answerIn(answer any) string {
	raw, err := json.Marshal(answer)
	if err != nil {
		return ""
	}
	return "\n# answered: " + string(raw)
}

// errUnparsable starts the refusal of an answer that makes no sense.
var errUnparsable = errors.New("the plugin's answer makes no sense")
