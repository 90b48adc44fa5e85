package cluster

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/linkspan/linkspan"
)

// silent tells whether an error means that the store gave no answer: what was
// asked for may have been done or not. A member of etcd that waits for others in
// vain has several codes for it, so the codes of refusals are the known ones.
func silent(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	code := status.Code(err)
	if known := (rpctypes.EtcdError{}); errors.As(err, &known) {
		code = known.Code()
	}
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.Unauthenticated,
		codes.FailedPrecondition, codes.OutOfRange, codes.ResourceExhausted, codes.Unimplemented:
		return false
	}
	return true
}

// ask puts a question to the store, and a second time if there is no answer: the
// next one goes to another member of etcd. So it must be one that may be asked
// twice. While the store is known not to answer it is not asked.
//
// An error without an answer is of kind ErrUnavailable, also when ctx ended;
// silent tells it from a refusal.
func (c *Cluster) ask(ctx context.Context, question func(context.Context, *clientv3.Client) error) error {
	select {
	case <-c.first:
	case <-ctx.Done():
	}
	var err error
	for range 2 {
		c.mu.Lock()
		client := c.client
		if c.link.away || client == nil {
			err = c.down()
			c.mu.Unlock()
			return &unanswered{err}
		}
		c.mu.Unlock()
		err = c.within(ctx, func(ctx context.Context) error { return question(ctx, client) })
		if err == nil || ctx.Err() != nil || !silent(err) {
			break
		}
	}
	switch {
	case err == nil:
		return nil
	case silent(err):
		return &unanswered{linkspan.Errorf(linkspan.ErrUnavailable, "cluster store %s does not answer: %w", c.o, err)}
	}
	return linkspan.Errorf(linkspan.ErrUnavailable, "cluster store %s refuses: %w", c.o, err)
}

// unanswered is the error of a question that the store gave no answer to.
type unanswered struct{ error }

func (u *unanswered) Unwrap() error { return u.error }

func isUnanswered(err error) bool {
	var u *unanswered
	return errors.As(err, &u)
}
