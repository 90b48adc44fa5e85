package seccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

const (
	offsetArgs = 16
	sizeOfArg  = 8
)

// target is where a comparison goes on.
type target int

const (
	next target = iota // the instruction after it
	pass               // the condition after this one
	fail               // the end of the rule
)

// comparison is a conditional jump whose distances are not known yet.
type comparison struct {
	test      bpf.JumpTest
	value     uint32
	yes, no   target
	condition int
}

// matching is the code that answers if all conditions hold and else runs off
// its end. An argument has 64 bits and BPF 32, so each is compared in halves.
func matching(args []specs.LinuxSeccompArg, answer uint32) ([]bpf.Instruction, error) {
	var code []any // bpf.Instruction or comparison
	starts := make([]int, 0, len(args)+1)
	for i, arg := range args {
		if arg.Index > 5 {
			return nil, fmt.Errorf("system calls have no argument %d", arg.Index)
		}
		starts = append(starts, len(code))
		one, err := compare(arg, i)
		if err != nil {
			return nil, err
		}
		code = append(code, one...)
	}
	starts = append(starts, len(code))
	end := len(code) + 1 // behind the answer
	if end >= 250 {
		return nil, fmt.Errorf("too many conditions in one rule: %d", len(args))
	}
	program := make([]bpf.Instruction, 0, end)
	for at, c := range code {
		jump, ok := c.(comparison)
		if !ok {
			program = append(program, c.(bpf.Instruction))
			continue
		}
		skip := func(t target) uint8 {
			switch t {
			case pass:
				return uint8(starts[jump.condition+1] - at - 1)
			case fail:
				return uint8(end - at - 1)
			}
			return 0
		}
		program = append(program, bpf.JumpIf{Cond: jump.test, Val: jump.value, SkipTrue: skip(jump.yes), SkipFalse: skip(jump.no)})
	}
	return append(program, bpf.RetConstant{Val: answer}), nil
}

// compare is the code of one condition; it falls through or jumps to pass if
// the condition holds.
func compare(arg specs.LinuxSeccompArg, condition int) ([]any, error) {
	// Low half first: all architectures with a table of calls are little-endian.
	low := bpf.LoadAbsolute{Off: uint32(offsetArgs + sizeOfArg*arg.Index), Size: 4}
	high := bpf.LoadAbsolute{Off: low.Off + 4, Size: 4}
	jump := func(test bpf.JumpTest, value uint64, yes, no target) comparison {
		return comparison{test, uint32(value), yes, no, condition}
	}
	ordered := func(test bpf.JumpTest, yes, no target) []any {
		return []any{
			high,
			jump(bpf.JumpGreaterThan, arg.Value>>32, yes, next),
			jump(bpf.JumpEqual, arg.Value>>32, next, no),
			low,
			jump(test, arg.Value, yes, no),
		}
	}
	switch arg.Op {
	case specs.OpEqualTo:
		return []any{high, jump(bpf.JumpEqual, arg.Value>>32, next, fail), low, jump(bpf.JumpEqual, arg.Value, next, fail)}, nil
	case specs.OpNotEqual:
		return []any{high, jump(bpf.JumpEqual, arg.Value>>32, next, pass), low, jump(bpf.JumpEqual, arg.Value, fail, next)}, nil
	case specs.OpMaskedEqual:
		mask := func(half uint64) bpf.ALUOpConstant { return bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(half)} }
		return []any{
			high, mask(arg.Value >> 32), jump(bpf.JumpEqual, arg.ValueTwo>>32, next, fail),
			low, mask(arg.Value), jump(bpf.JumpEqual, arg.ValueTwo, next, fail),
		}, nil
	case specs.OpGreaterThan:
		return ordered(bpf.JumpGreaterThan, pass, fail), nil
	case specs.OpGreaterEqual:
		return ordered(bpf.JumpGreaterOrEqual, pass, fail), nil
	case specs.OpLessEqual:
		return ordered(bpf.JumpGreaterThan, fail, pass), nil
	case specs.OpLessThan:
		return ordered(bpf.JumpGreaterOrEqual, fail, pass), nil
	}
	return nil, fmt.Errorf("comparison %s is not supported", arg.Op)
}
