package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/linkspan/linkspan/plugin/wire"
)

const activate = "Plugin.Activate"

// ask looks for the plugin and asks it what it is. Its errors are those of
// exchange.
func (l *Line) ask(ctx context.Context) (About, error) {
	place, err := find(l.directory.folders, l.name)
	if err != nil {
		return About{}, err
	}
	tr, err := newTransport(place)
	if err != nil {
		return About{}, err
	}
	l.mu.Lock()
	l.wire = tr
	l.mu.Unlock()
	about := About{Place: place}
	if about.Implements, err = l.activate(ctx); err != nil {
		return about, err
	}
	if slices.Contains(about.Implements, wire.NetworkDriver) {
		if about.Network, err = l.capabilities(ctx); err != nil {
			return about, err
		}
	}
	if slices.Contains(about.Implements, wire.IpamDriver) {
		// One that cannot say wants nothing special.
		err = l.introduction(ctx, "IpamDriver.GetCapabilities", &about.IPAM)
		if err != nil && !Refused(err) {
			return about, err
		}
	}
	return about, nil
}

// activate asks what the plugin offers. Some do not know the question: those are
// tried.
func (l *Line) activate(ctx context.Context) ([]string, error) {
	var answer wire.Activation
	err := l.introduction(ctx, activate, &answer)
	if err == nil && len(answer.Implements) == 0 {
		return nil, garbled{errors.New("it says that it implements nothing")}
	}
	if err == nil || !Unsupported(err) {
		return answer.Implements, err
	}
	for kind, question := range map[string]string{
		wire.NetworkDriver: "NetworkDriver.GetCapabilities",
		wire.IpamDriver:    "IpamDriver.GetDefaultAddressSpaces",
	} {
		if l.introduction(ctx, question, nil) == nil {
			answer.Implements = append(answer.Implements, kind)
		}
	}
	if answer.Implements == nil {
		return nil, err
	}
	slices.Sort(answer.Implements)
	return answer.Implements, nil
}

func (l *Line) capabilities(ctx context.Context) (wire.Capabilities, error) {
	var c wire.Capabilities
	if err := l.introduction(ctx, "NetworkDriver.GetCapabilities", &c); err != nil {
		return c, err
	}
	if c.ConnectivityScope == "" {
		c.ConnectivityScope = c.Scope
	}
	for _, scope := range []string{c.Scope, c.ConnectivityScope} {
		if scope != "local" && scope != "global" {
			return c, garbled{fmt.Errorf("invalid capability: expecting 'local' or 'global', got %q", scope)}
		}
	}
	return c, nil
}
