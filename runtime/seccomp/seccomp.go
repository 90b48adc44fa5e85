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
// from go-seccomp-bpf. The latter's own compiler knows neither a second
// architecture nor an errno other than EPERM, and in a program of this length
// it mistook one call of the 32-bit block (the model in the tests found it).
// The programs made here have no long conditional jumps; the blocks for a
// machine's 64 and 32-bit calls stand behind one another:
//
//	load arch ── amd64? ── search the number: … → allow / errno, by arguments if need be
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
	"slices"

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
		block, berr := rules(profile, machine)
		if berr != nil {
			return nil, berr
		}
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(machine.ID), SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(block))})
		program = append(program, block...)
	}
	program = append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS})
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
	last, err := action(profile.DefaultAction, profile.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	answers, newest, err := perCall(profile, machine)
	if err != nil {
		return nil, err
	}
	var intervals []interval
	for number := uint32(0); number <= newest; number++ {
		code := answers[number].code
		if !answers[number].final {
			code = append(code, bpf.RetConstant{Val: last})
		}
		if n := len(intervals); n > 0 && len(code) == 1 && slices.Equal(intervals[n-1].code, code) {
			continue
		}
		intervals = append(intervals, interval{number, code})
	}
	// What is newer than the profile is not there, and neither are x32 calls. A
	// profile that allows what it does not name allows what is newer, too.
	missing := []bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}}
	if last == unix.SECCOMP_RET_ALLOW || last == unix.SECCOMP_RET_LOG {
		intervals = append(intervals, interval{newest + 1, []bpf.Instruction{bpf.RetConstant{Val: last}}}, interval{x32Bit, missing})
	} else {
		intervals = append(intervals, interval{newest + 1, missing})
	}
	return append([]bpf.Instruction{bpf.LoadAbsolute{Off: offsetNumber, Size: 4}}, search(intervals)...), nil
}

// perCall collects the code of each call that the profile names, by number:
// its rules one after the other, up to the first without conditions. It also
// returns the highest number.
func perCall(profile *specs.LinuxSeccomp, machine *arch.Info) (map[uint32]call, uint32, error) {
	answers := map[uint32]call{}
	var newest uint32
	for _, rule := range profile.Syscalls {
		answer, err := action(rule.Action, rule.ErrnoRet)
		if err != nil {
			return nil, 0, err
		}
		match, err := matching(rule.Args, answer)
		if err != nil {
			return nil, 0, err
		}
		for _, name := range rule.Names {
			n, ok := machine.SyscallNames[name]
			if !ok || n >= x32Bit-1 {
				continue // of another architecture
			}
			number := uint32(n)
			newest = max(newest, number)
			if c := answers[number]; !c.final {
				answers[number] = call{append(slices.Clone(c.code), match...), len(rule.Args) == 0}
			}
		}
	}
	return answers, newest, nil
}

// call is what the rules say of one call. Without conditions it is final.
type call struct {
	code  []bpf.Instruction
	final bool
}

// interval is a run of calls, up to the next interval, that have the same code.
type interval struct {
	first uint32
	code  []bpf.Instruction
}

// search finds the interval of a call by halving: eight comparisons instead of
// hundreds, at each call whose answer the kernel has not kept, and when it looks
// which answers it can keep (seccomp_cache_prepare), which is most of the cost
// of installing a filter.
func search(intervals []interval) []bpf.Instruction {
	if len(intervals) == 1 {
		return intervals[0].code
	}
	middle := len(intervals) / 2
	left, right := search(intervals[:middle]), search(intervals[middle:])
	// A conditional jump reaches 255 instructions, an unconditional one all.
	code := []bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: intervals[middle].first, SkipFalse: 1},
		bpf.Jump{Skip: uint32(len(left))},
	}
	return append(append(code, left...), right...)
}

func action(name specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errno != nil {
		data = uint32(*errno) & unix.SECCOMP_RET_DATA
	}
	switch name {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | data, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | data, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	}
	return 0, fmt.Errorf("action %s is not supported", name)
}
