// Package seccomp compiles Docker's seccomp profiles to the BPF program that
// the kernel runs at each system call of a container.
//
// A filter sees the architecture, the number and the six arguments of a call
// (seccomp(2)) and answers allow, fail with an errno, or kill. What a filter
// does can be seen by
//
//	grep Seccomp /proc/PID/status        # 2: a filter is in force
//	unshare --user true                  # inside: Operation not permitted
//
// Rules and their conditions come from github.com/moby/profiles, call numbers
// and the code for one comparison from go-seccomp-bpf, whose own policies know
// neither a second architecture nor an errno other than EPERM. Here the
// programs for a machine's 64 and 32-bit calls are put behind one another:
//
//	load arch ── amd64? ── x32, or newer than the profile? → ENOSYS
//	          │            rules … → allow / errno; else default
//	          ├─ i386?  ── the same with its own numbers
//	          └─ other  ── kill
//
// A call that is newer than every call that the profile names fails with
// ENOSYS, not EPERM, so that a C library falls back to an older one.
package seccomp

import (
	"encoding/binary"
	"fmt"
	"runtime"

	elastic "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// offsets into struct seccomp_data
const (
	offsetNumber = 0
	offsetArch   = 4
)

// x32Bit marks a call of the x32 ABI, which hardly any kernel has; its calls
// would otherwise pass for amd64 calls of high number.
const x32Bit = 0x40000000

// Default compiles Docker's default profile for a container with the given
// capabilities ("CAP_CHOWN", …), on which some of its rules depend. The bytes
// are an array of struct sock_filter in the machine's byte order.
func Default(capabilities []string) ([]byte, error) {
	profile, err := profiles.GetDefaultProfile(holding(capabilities))
	if err != nil {
		return nil, fmt.Errorf("reading the default seccomp profile: %w", err)
	}
	return compile(profile)
}

// Profile compiles a profile in Docker's JSON form, as a client sends it for
// --security-opt seccomp=FILE.
func Profile(text string, capabilities []string) ([]byte, error) {
	profile, err := profiles.LoadProfile(text, holding(capabilities))
	if err != nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid seccomp profile: %w", err)
	}
	if profile == nil {
		return nil, nil
	}
	filter, err := compile(profile)
	if err != nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid seccomp profile: %w", err)
	}
	return filter, nil
}

func holding(capabilities []string) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}}
}

// architectures lists the machine's own and the one that it runs beside it.
func architectures() ([]*arch.Info, error) {
	own, err := arch.GetInfo("")
	if err != nil {
		return nil, linkspan.Errorf(linkspan.ErrUnsupported, "no seccomp call numbers for this architecture: %w", err)
	}
	switch runtime.GOARCH {
	case "amd64":
		return []*arch.Info{own, arch.I386}, nil
	case "arm64":
		return []*arch.Info{own, arch.ARM}, nil
	}
	return []*arch.Info{own}, nil
}

func compile(profile *specs.LinuxSeccomp) ([]byte, error) {
	machines, err := architectures()
	if err != nil {
		return nil, err
	}
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetArch, Size: 4}}
	for _, machine := range machines {
		var block []bpf.Instruction
		if block, err = rules(profile, machine); err != nil {
			return nil, err
		}
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(machine.ID), SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(block))})
		program = append(program, block...)
	}
	program = append(program, bpf.RetConstant{Val: uint32(elastic.ActionKillProcess)})
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assembling the seccomp filter: %w", err)
	}
	if len(raw) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("assembling the seccomp filter: %d instructions, the kernel takes %d", len(raw), unix.BPF_MAXINSNS)
	}
	var out []byte
	for _, i := range raw {
		out = binary.NativeEndian.AppendUint16(out, i.Op)
		out = append(out, i.Jt, i.Jf)
		out = binary.NativeEndian.AppendUint32(out, i.K)
	}
	return out, nil
}

// rules is the part of the program for one architecture.
func rules(profile *specs.LinuxSeccomp, machine *arch.Info) ([]bpf.Instruction, error) {
	groups, newest, err := group(profile, machine)
	if err != nil {
		return nil, err
	}
	program := elastic.NewProgram()
	for _, g := range groups {
		matched, next := program.NewLabel(), program.NewLabel()
		for i, call := range g.calls {
			call.Assemble(&program, i < len(g.calls)-1, matched, next)
		}
		program.SetLabel(matched)
		program.Ret(g.action)
		program.SetLabel(next)
	}
	last, err := action(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	program.Ret(last)
	body, err := program.Assemble()
	if err != nil {
		return nil, fmt.Errorf("assembling the seccomp filter: %w", err)
	}
	nosys := bpf.RetConstant{Val: uint32(elastic.ActionErrno) | uint32(unix.ENOSYS)}
	head := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: min(newest, x32Bit-1), SkipFalse: 1},
		nosys,
	}
	return append(head, body...), nil
}

// calls is a run of system calls with one answer.
type calls struct {
	action elastic.Action
	calls  []elastic.SyscallWithConditions
}

// group orders the profile's rules for one architecture: by answer, each call
// once, with all its alternatives; no condition beats any condition. It also
// returns the highest number that the profile names.
func group(profile *specs.LinuxSeccomp, machine *arch.Info) ([]calls, uint32, error) {
	type place struct{ group, call int }
	var groups []calls
	byAction := map[elastic.Action]int{}
	places := map[uint64]place{}
	var newest uint32
	for _, rule := range profile.Syscalls {
		answer, err := action(rule.Action, rule.ErrnoRet)
		if err != nil {
			return nil, 0, err
		}
		conditions, err := conditionsOf(rule.Args)
		if err != nil {
			return nil, 0, err
		}
		if _, ok := byAction[answer]; !ok {
			byAction[answer] = len(groups)
			groups = append(groups, calls{action: answer})
		}
		g := byAction[answer]
		for _, name := range rule.Names {
			number, ok := machine.SyscallNames[name]
			if !ok {
				continue // of another architecture
			}
			newest = max(newest, uint32(number))
			key := uint64(g)<<32 | uint64(number)
			at, seen := places[key]
			if !seen {
				at = place{g, len(groups[g].calls)}
				places[key] = at
				groups[g].calls = append(groups[g].calls, elastic.SyscallWithConditions{Num: uint32(number)})
			}
			call := &groups[at.group].calls[at.call]
			switch {
			case len(conditions) == 0:
				call.Conditions = nil
			case !seen || len(call.Conditions) > 0:
				call.Conditions = append(call.Conditions, conditions)
			}
		}
	}
	groups = withCalls(groups)
	return groups, newest, nil
}

func withCalls(groups []calls) []calls {
	var used []calls
	for _, g := range groups {
		if len(g.calls) > 0 {
			used = append(used, g)
		}
	}
	return used
}

func conditionsOf(args []specs.LinuxSeccompArg) (elastic.ArgumentConditions, error) {
	operations := map[specs.LinuxSeccompOperator]elastic.Operation{
		specs.OpNotEqual:     elastic.NotEqual,
		specs.OpLessThan:     elastic.LessThan,
		specs.OpLessEqual:    elastic.LessOrEqual,
		specs.OpEqualTo:      elastic.Equal,
		specs.OpGreaterEqual: elastic.GreaterOrEqual,
		specs.OpGreaterThan:  elastic.GreaterThan,
	}
	var list elastic.ArgumentConditions
	for _, arg := range args {
		condition := elastic.Condition{Argument: uint32(arg.Index), Value: arg.Value}
		op, ok := operations[arg.Op]
		switch {
		case arg.Index > 5:
			return nil, fmt.Errorf("system calls have no argument %d", arg.Index)
		case ok:
			condition.Operation = op
		case arg.Op == specs.OpMaskedEqual && arg.ValueTwo == 0:
			condition.Operation = elastic.BitsNotSet
		case arg.Op == specs.OpMaskedEqual && arg.ValueTwo == arg.Value && arg.Value&(arg.Value-1) == 0:
			condition.Operation = elastic.BitsSet // a single bit
		default:
			return nil, fmt.Errorf("comparison %s of %#x with %#x is not supported", arg.Op, arg.Value, arg.ValueTwo)
		}
		list = append(list, condition)
	}
	return list, nil
}

func action(name specs.LinuxSeccompAction, errno *uint) (elastic.Action, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		data = uint32(*errno)
	}
	switch name {
	case specs.ActAllow:
		return elastic.ActionAllow, nil
	case specs.ActLog:
		return elastic.ActionLog, nil
	case specs.ActTrap:
		return elastic.ActionTrap, nil
	case specs.ActErrno:
		return elastic.ActionErrno | elastic.Action(data), nil
	case specs.ActTrace:
		return elastic.ActionTrace | elastic.Action(data), nil
	case specs.ActKill, specs.ActKillThread:
		return elastic.ActionKillThread, nil
	case specs.ActKillProcess:
		return elastic.ActionKillProcess, nil
	}
	return 0, fmt.Errorf("action %s is not supported", name)
}
