package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	allow = uint32(unix.SECCOMP_RET_ALLOW)
	eperm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	nosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// machine runs a filter as the kernel does.
func machine(tb testing.TB, filter []byte) *bpf.VM {
	tb.Helper()
	var raw []bpf.RawInstruction
	for p := filter; len(p) > 0; p = p[8:] {
		raw = append(raw, bpf.RawInstruction{Op: binary.NativeEndian.Uint16(p), Jt: p[2], Jf: p[3], K: binary.NativeEndian.Uint32(p[4:])})
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		tb.Fatal("the filter has instructions that are none")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		tb.Fatal(err)
	}
	return vm
}

// ask lays out struct seccomp_data. The virtual machine, made for packets, reads
// words in network order; the kernel reads them in its own.
func ask(tb testing.TB, vm *bpf.VM, architecture uint32, number int, args [6]uint64) uint32 {
	tb.Helper()
	data := binary.BigEndian.AppendUint32(nil, uint32(number))
	data = binary.BigEndian.AppendUint32(data, architecture)
	data = append(data, make([]byte, 8)...) // instruction pointer
	for _, a := range args {
		data = binary.BigEndian.AppendUint32(data, uint32(a)) // low half first: a little-endian machine
		data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
	}
	n, err := vm.Run(data)
	if err != nil {
		tb.Fatal(err)
	}
	return uint32(n)
}

func TestDefault(t *testing.T) {
	filter, err := Default([]string{"CAP_CHOWN"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(filter)/8)
	vm := machine(t, filter)
	tests := []struct {
		name   string
		number int
		args   [6]uint64
		want   uint32
	}{
		{"read", unix.SYS_READ, [6]uint64{}, allow},
		{"execve", unix.SYS_EXECVE, [6]uint64{}, allow},
		{"mount", unix.SYS_MOUNT, [6]uint64{}, eperm},
		{"bpf", unix.SYS_BPF, [6]uint64{}, eperm},
		{"clone of a process", unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}, allow},
		{"clone into a user namespace", unix.SYS_CLONE, [6]uint64{unix.CLONE_NEWUSER}, eperm},
		{"clone3", unix.SYS_CLONE3, [6]uint64{}, nosys},
		{"unshare", unix.SYS_UNSHARE, [6]uint64{unix.CLONE_NEWNS}, eperm},
		{"inet socket", unix.SYS_SOCKET, [6]uint64{unix.AF_INET}, allow},
		{"vsock socket", unix.SYS_SOCKET, [6]uint64{unix.AF_VSOCK}, eperm},
		{"inet socket in the low half only", unix.SYS_SOCKET, [6]uint64{unix.AF_INET | 1<<32}, eperm},
		{"personality", unix.SYS_PERSONALITY, [6]uint64{0x20008}, allow},
		{"other personality", unix.SYS_PERSONALITY, [6]uint64{0x40000}, eperm},
		{"a call to come", 5000, [6]uint64{}, nosys},
		{"x32 read", x32Bit | unix.SYS_READ, [6]uint64{}, nosys},
	}
	for _, test := range tests {
		if got := ask(t, vm, uint32(arch.X86_64.ID), test.number, test.args); got != test.want {
			t.Errorf("%s: got %#x, want %#x", test.name, got, test.want)
		}
	}
	if got := ask(t, vm, uint32(arch.I386.ID), arch.I386.SyscallNames["mount"], [6]uint64{}); got != eperm {
		t.Errorf("32-bit mount: %#x", got)
	}
	if got := ask(t, vm, uint32(arch.I386.ID), arch.I386.SyscallNames["read"], [6]uint64{}); got != allow {
		t.Errorf("32-bit read: %#x", got)
	}
	if got := ask(t, vm, uint32(arch.ARM.ID), 0, [6]uint64{}); got != uint32(unix.SECCOMP_RET_KILL_PROCESS) {
		t.Errorf("another architecture: %#x", got)
	}
	admin, err := Default([]string{"CAP_SYS_ADMIN"})
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, machine(t, admin), uint32(arch.X86_64.ID), unix.SYS_MOUNT, [6]uint64{}); got != allow {
		t.Errorf("mount with CAP_SYS_ADMIN: %#x", got)
	}
}

// naive reads a profile as its documentation says, one rule after the other.
func naive(profile *specs.LinuxSeccomp, info *arch.Info, number int, args [6]uint64) uint32 {
	newest := 0
	for _, rule := range profile.Syscalls {
		for _, name := range rule.Names {
			newest = max(newest, info.SyscallNames[name])
		}
	}
	if number > newest {
		return nosys
	}
	for _, rule := range profile.Syscalls {
		if !slices.Contains(rule.Names, info.SyscallNumbers[number]) {
			continue
		}
		holds := true
		for _, a := range rule.Args {
			switch v := args[a.Index]; a.Op {
			case specs.OpLessThan:
				holds = holds && v < a.Value
			case specs.OpEqualTo:
				holds = holds && v == a.Value
			case specs.OpMaskedEqual:
				holds = holds && v&a.Value == a.ValueTwo
			case specs.OpNotEqual:
				holds = holds && v != a.Value
			case specs.OpLessEqual:
				holds = holds && v <= a.Value
			case specs.OpGreaterThan:
				holds = holds && v > a.Value
			case specs.OpGreaterEqual:
				holds = holds && v >= a.Value
			}
		}
		if holds {
			answer, err := action(rule.Action, rule.ErrnoRet)
			if err != nil {
				panic(err)
			}
			return answer
		}
	}
	return eperm
}

// TestAgreesWithModel compares the filter with the naive reading for every call
// number of both architectures, with arguments on and beside all bounds.
func TestAgreesWithModel(t *testing.T) {
	for _, caps := range [][]string{nil, {"CAP_SYS_ADMIN"}, {"CAP_SYS_PTRACE", "CAP_SYSLOG", "CAP_BPF"}} {
		profile, err := profiles.GetDefaultProfile(holding(caps))
		if err != nil {
			t.Fatal(err)
		}
		agrees(t, profile, 600)
	}
	every := []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
	}
	// Profiles with all operators and up to three conditions in a rule.
	for range 40 {
		profile := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
		for range 1 + rand.IntN(6) {
			rule := specs.LinuxSyscall{Names: []string{arch.X86_64.SyscallNumbers[rand.IntN(5)]}, Action: []specs.LinuxSeccompAction{specs.ActAllow, specs.ActTrap, specs.ActLog}[rand.IntN(3)]}
			for range rand.IntN(4) {
				value := []uint64{0, 1, 5, 1<<32 - 1, 1 << 32, 5<<32 | 5, 1<<64 - 1}[rand.IntN(7)]
				rule.Args = append(rule.Args, specs.LinuxSeccompArg{Index: uint(rand.IntN(2)), Value: value, ValueTwo: value & 5, Op: every[rand.IntN(len(every))]})
			}
			profile.Syscalls = append(profile.Syscalls, rule)
		}
		agrees(t, profile, 6)
	}
}

func agrees(t *testing.T, profile *specs.LinuxSeccomp, numbers int) {
	t.Helper()
	filter, err := compile(profile)
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, filter)
	values := []uint64{0, 1 << 32, 1<<64 - 1}
	conditional := map[string]bool{}
	for _, rule := range profile.Syscalls {
		for _, a := range rule.Args {
			values = append(values, a.Value, a.Value+1, a.Value-1, a.Value|1<<40, a.ValueTwo)
			for _, name := range rule.Names {
				conditional[name] = true
			}
		}
	}
	for _, info := range []*arch.Info{arch.X86_64, arch.I386} {
		for number := range numbers {
			draws := 1
			if conditional[info.SyscallNumbers[number]] {
				draws = 1000
			}
			for range draws {
				var args [6]uint64
				for i := range args {
					args[i] = values[rand.IntN(len(values))]
					if rand.IntN(4) == 0 {
						args[i] = rand.Uint64()
					}
				}
				got, want := ask(t, vm, uint32(info.ID), number, args), naive(profile, info, number, args)
				if got != want {
					t.Fatalf("%s %d (%s) %x: got %#x, want %#x\nprofile: %+v", info.Name, number, info.SyscallNumbers[number], args, got, want, profile)
				}
			}
		}
	}
}

func TestProfile(t *testing.T) {
	filter, err := Profile(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, filter)
	if got := ask(t, vm, uint32(arch.X86_64.ID), unix.SYS_MKDIR, [6]uint64{}); got != unix.SECCOMP_RET_ERRNO|5 {
		t.Errorf("mkdir: %#x", got)
	}
	if got := ask(t, vm, uint32(arch.X86_64.ID), unix.SYS_READ, [6]uint64{}); got != allow {
		t.Errorf("read: %#x", got)
	}
	if got := ask(t, vm, uint32(arch.X86_64.ID), 10_000, [6]uint64{}); got != allow {
		t.Errorf("a call that the profile does not name: %#x", got)
	}
	if got := ask(t, vm, uint32(arch.X86_64.ID), x32Bit|unix.SYS_READ, [6]uint64{}); got != nosys {
		t.Errorf("a call of the x32 ABI: %#x", got)
	}
	for _, text := range []string{"", "{", `{"defaultAction":"SCMP_ACT_WHAT","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`} {
		if _, err := Profile(text, nil); err == nil {
			t.Errorf("%q was taken for a profile", text)
		}
	}
}
