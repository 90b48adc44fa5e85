package op

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// Changer is an Op whose thing can become what another Op of its kind would
// have made, without a moment in which it is not there.
type Changer interface {
	// Thing names what the Op makes. No two Ops of one plan make the same.
	Thing() string

	// Into returns the changes that make of the thing what to would have made,
	// and whether there are such. to is of the same Thing.
	Into(to Op) (changes []Op, ok bool)
}

// Reverser is an Op that can be taken back while what it belongs to stays:
// Undo may leave that to the end of the link, and prints nothing.
type Reverser interface {
	// Reverse returns the Op that takes it back.
	Reverse() Op
}

// Difference returns the plan that makes of what old made what fresh would have
// made, and whose undo goes the way back: steps that both have are left alone,
// things that both have are changed where they are, new steps come before those
// that are taken back.
//
// A plan does not say in what order things must go that rest on each other: to
// switch IPv6 off, which takes addresses along, is more than a difference.
//
// Its undo may be called after any part of it was done, or none. An error, of
// kind ErrForbidden, names what cannot change in place. Pure.
func Difference(old, fresh Plan) (Plan, error) {
	var diff Plan
	kept := make([]bool, len(old))
	var later []Step
	for _, step := range fresh {
		if i := same(old, kept, step.Op); i >= 0 {
			kept[i] = true
			continue
		}
		later = append(later, step)
	}
	for _, step := range later {
		i := sameThing(old, kept, step.Op)
		if i < 0 {
			if reverser, ok := step.Op.(Reverser); ok {
				step.Op = added{step.Op, reverser.Reverse()}
			}
			diff = append(diff, step)
			continue
		}
		kept[i] = true
		changer, _ := old[i].Op.(Changer)
		changes, ok := changer.Into(step.Op)
		if !ok {
			return nil, linkspan.Errorf(linkspan.ErrForbidden, "%s cannot become %q in place", changer.Thing(), firstLine(step.Op.String()))
		}
		for _, change := range changes {
			diff = append(diff, Step{step.Why, change})
		}
	}
	for i, step := range slices.Backward(old) {
		if kept[i] {
			continue
		}
		reverser, ok := step.Op.(Reverser)
		if !ok {
			return nil, linkspan.Errorf(linkspan.ErrForbidden, "%q cannot be taken back while the rest stays", firstLine(step.Op.String()))
		}
		diff = append(diff, Step{fmt.Sprintf("No longer wanted: %s", step.Why), reverser.Reverse()})
	}
	return diff, nil
}

// added is an Op whose link stays when it is undone.
type added struct {
	Op
	reverse Op
}

// Undo takes the Op back, whether it was done or not.
func (o added) Undo(ctx context.Context, h *kernel.Host) error {
	if err := o.reverse.Do(ctx, h); err != nil && !kernel.IsGone(err) {
		return err
	}
	return nil
}

func same(plan Plan, kept []bool, op Op) int {
	for i, step := range plan {
		if !kept[i] && reflect.DeepEqual(step.Op, op) {
			return i
		}
	}
	return -1
}

func sameThing(plan Plan, kept []bool, op Op) int {
	changer, ok := op.(Changer)
	if !ok {
		return -1
	}
	for i, step := range plan {
		if other, ok := step.Op.(Changer); ok && !kept[i] && other.Thing() == changer.Thing() && reflect.TypeOf(step.Op) == reflect.TypeOf(op) {
			return i
		}
	}
	return -1
}
