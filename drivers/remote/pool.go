package remote

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/wire"
)

// tries is how many pools a plugin may offer that cannot be used.
const tries = 32

// LeasedPool is what a plugin answered to RequestPool.
type LeasedPool struct {
	AddressSpace string
	wire.RequestPoolResponse
}

// RequestPool has a plugin reserve a pool. The address space is the plugin's own
// default, which it is asked for first.
type RequestPool struct {
	party
	Global  bool `json:",omitempty"` // the network spans hosts
	Request wire.RequestPoolRequest
	Avoid   []string    `json:",omitempty"` // prefixes that a pool of its own choice must not overlap
	Answer  *LeasedPool `json:",omitempty"`
}

// Do is Ask, less the answer.
func (o RequestPool) Do(ctx context.Context, h *kernel.Host) error {
	_, err := o.Ask(ctx, h)
	return err
}

// Ask asks for the pool, or for the same again if it was answered before. Pools
// that cannot be used are held until a better one is there, or the plugin would
// offer them again.
func (o RequestPool) Ask(ctx context.Context, _ *kernel.Host) (op.Op, error) {
	var spaces wire.AddressSpaces
	if err := o.line().Call(ctx, "IpamDriver.GetDefaultAddressSpaces", nil, &spaces); err != nil {
		return o, err
	}
	space := spaces.LocalDefaultAddressSpace
	if o.Global {
		space = spaces.GlobalDefaultAddressSpace
	}
	request := o.Request
	request.AddressSpace = space
	if o.Answer != nil {
		request.AddressSpace, request.Pool = o.Answer.AddressSpace, o.Answer.Pool
	}
	held, rejected, err := o.choose(ctx, request)
	if o.Answer != nil && plugin.Refused(err) {
		o.known(o.key(), err)
		return o, nil
	}
	for _, useless := range rejected {
		if undoErr := useless.Undo(context.WithoutCancel(ctx), nil); undoErr != nil {
			o.plugins.Logf("giving back a pool that cannot be used: %v", undoErr)
		}
	}
	if err != nil {
		return o, err
	}
	o.line().Note(held.key())
	return held, nil
}

// choose asks until there is a pool that can be used. It also returns those that
// were had and cannot be.
func (o RequestPool) choose(ctx context.Context, request wire.RequestPoolRequest) (held RequestPool, rejected []RequestPool, err error) {
	for range tries {
		held = o
		held.Answer = &LeasedPool{AddressSpace: request.AddressSpace}
		if err := o.line().Call(ctx, "IpamDriver.RequestPool", request, &held.Answer.RequestPoolResponse); err != nil {
			return held, rejected, err
		}
		usable, err := held.usable()
		if usable {
			return held, rejected, nil
		}
		rejected = append(rejected, held)
		if err != nil {
			return held, rejected, err
		}
	}
	return held, rejected, linkspan.Errorf(linkspan.ErrUnavailable, "plugin %q offers only pools that are used on this host, such as %s (see: ip route)", o.Plugin, held.Answer.Pool)
}

// usable tells whether the answer can be used; an error says that no other would
// be better.
func (o RequestPool) usable() (bool, error) {
	pool, err := netip.ParsePrefix(o.Answer.Pool)
	if err != nil || pool != pool.Masked() || pool.Addr().Is6() != o.Request.V6 {
		return false, fmt.Errorf("%w: RequestPool: Pool %q is no %s prefix", errUnparsable, o.Answer.Pool, familyOf(o.Request.V6))
	}
	if text := o.Answer.Data[wire.OptionGateway]; text != "" {
		if gateway, err := netip.ParsePrefix(text); err != nil || !pool.Contains(gateway.Addr()) {
			return false, fmt.Errorf("%w: RequestPool: gateway %q is not in the pool %s", errUnparsable, text, pool)
		}
	}
	for _, text := range o.Avoid {
		if taken, err := netip.ParsePrefix(text); err == nil && pool.Bits() > 0 && taken.Overlaps(pool) {
			return false, nil
		}
	}
	return true, nil
}

func familyOf(six bool) string {
	if six {
		return "IPv6"
	}
	return "IPv4"
}

func (o RequestPool) key() string { return "pool " + o.Answer.PoolID }

// known takes the refusal of a repeated request for the word that the plugin has
// it: one that kept it over its restart, or that never was restarted, refuses to
// give it twice.
func (p party) known(key string, err error) {
	p.plugins.Logf("%v: taken for held already", err)
	p.line().Note(key)
}

// Undo gives the pool back.
func (o RequestPool) Undo(ctx context.Context, _ *kernel.Host) error {
	if o.Answer == nil {
		return nil
	}
	err := o.release(ctx, "IpamDriver.ReleasePool", wire.ReleasePoolRequest{PoolID: o.Answer.PoolID})
	if err == nil {
		o.line().Forget(o.key())
	}
	return err
}

// Check complains if the plugin forgets with each start, and was started.
func (o RequestPool) Check(context.Context, *kernel.Host) error {
	if o.Answer == nil {
		return nil
	}
	return o.replayed(o.key())
}

// replayed tells whether a plugin that wants all requests again has had one.
func (p party) replayed(key string) error {
	about, known := p.line().Known()
	if known && about.IPAM.RequiresRequestReplay && !p.line().Heard(key) {
		return fmt.Errorf("plugin %s was started and has not been told of %s again (see: linkspan plugin inspect %s)", p.Plugin, key, p.Plugin)
	}
	return nil
}

func (o RequestPool) String() string {
	request := o.Request
	if o.Answer != nil {
		request.AddressSpace = o.Answer.AddressSpace
	} else {
		request.AddressSpace = "…"
	}
	said := o.said("IpamDriver.GetDefaultAddressSpaces", struct{}{}) + "\n" + o.said("IpamDriver.RequestPool", request)
	if o.Answer != nil {
		said += answerIn(o.Answer.RequestPoolResponse)
	}
	return said
}

// RequestAddress has a plugin reserve an address.
type RequestAddress struct {
	party
	Request wire.RequestAddressRequest
	Others  []string                     `json:",omitempty"` // pools to try if that one is refused
	Answer  *wire.RequestAddressResponse `json:",omitempty"`
}

// Do is Ask, less the answer.
func (o RequestAddress) Do(ctx context.Context, h *kernel.Host) error {
	_, err := o.Ask(ctx, h)
	return err
}

// Ask asks for the address, or for the same again if it was answered before.
func (o RequestAddress) Ask(ctx context.Context, h *kernel.Host) (op.Op, error) {
	request := o.Request
	if o.Answer != nil {
		request.Address = o.address()
	}
	held := o
	held.Answer = &wire.RequestAddressResponse{}
	err := o.line().Call(ctx, "IpamDriver.RequestAddress", request, held.Answer)
	for _, other := range o.Others {
		if o.Answer != nil || !plugin.Refused(err) {
			break
		}
		request.PoolID, held.Request.PoolID = other, other
		err = o.line().Call(ctx, "IpamDriver.RequestAddress", request, held.Answer)
	}
	if o.Answer != nil && plugin.Refused(err) {
		o.known(o.key(), err)
		return o, nil
	}
	if err != nil {
		return o, err
	}
	if held.Answer.Address == "" {
		return o, linkspan.Errorf(linkspan.ErrUnavailable, "no address returned: plugin %q answered RequestAddress without one", o.Plugin)
	}
	prefix, err := netip.ParsePrefix(held.Answer.Address)
	if err == nil && request.Address != "" && prefix.Addr().String() != request.Address {
		err = fmt.Errorf("%s was asked for", request.Address)
	}
	if err != nil {
		err = fmt.Errorf("%w: RequestAddress: Address %q: %w", errUnparsable, held.Answer.Address, err)
		return o, takenBack(ctx, err, func(ctx context.Context) error { return held.Undo(ctx, h) })
	}
	o.line().Note(held.key())
	return held, nil
}

// address returns the address alone.
func (o RequestAddress) address() string {
	if prefix, err := netip.ParsePrefix(o.Answer.Address); err == nil {
		return prefix.Addr().String()
	}
	return o.Answer.Address
}

func (o RequestAddress) key() string {
	return "address " + o.address() + " of pool " + o.Request.PoolID
}

// Undo gives the address back.
func (o RequestAddress) Undo(ctx context.Context, _ *kernel.Host) error {
	if o.Answer == nil {
		return nil
	}
	err := o.release(ctx, "IpamDriver.ReleaseAddress", wire.ReleaseAddressRequest{PoolID: o.Request.PoolID, Address: o.address()})
	if err == nil {
		o.line().Forget(o.key())
	}
	return err
}

// Check complains if the plugin forgets with each start, and was started.
func (o RequestAddress) Check(context.Context, *kernel.Host) error {
	if o.Answer == nil {
		return nil
	}
	return o.replayed(o.key())
}

func (o RequestAddress) String() string {
	said := o.said("IpamDriver.RequestAddress", o.Request)
	if o.Answer != nil {
		said += answerIn(o.Answer)
	}
	return said
}
