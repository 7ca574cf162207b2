package native

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"platelayer/containers"
)

// Offsets in struct seccomp_data (linux/seccomp.h); both processors compiled
// for are little-endian, so an argument's low half comes first.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
	x32Bit     = 0x40000000
)

// rule is what a profile says of one system call: ways to be allowed, or an
// errno.
type rule struct {
	number uint32
	always bool
	ways   [][]specs.LinuxSeccompArg
	errno  uint32 // when no way fits
}

// defaultFilter compiles Docker's default profile for our capabilities.
func defaultFilter() (*unix.SockFprog, error) {
	prog, err := compileDefault()
	if err != nil {
		return nil, err
	}
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, fmt.Errorf("cannot assemble the system call filter: %w", err)
	}
	insns := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		insns[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}, nil
}

func compileDefault() ([]bpf.Instruction, error) {
	if syscallNumbers == "" {
		return nil, &containers.Unsupported{Feature: "a system call filter for this processor"}
	}
	profile, err := defaultProfile()
	if err != nil {
		return nil, err
	}
	rules, denied, err := profileRules(profile)
	if err != nil {
		return nil, err
	}
	return compile(rules, denied)
}

// defaultProfile evaluates Docker's profile for our capabilities, this
// processor and this kernel.
func defaultProfile() (*specs.LinuxSeccomp, error) {
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
	for _, c := range defaultCaps {
		spec.Process.Capabilities.Bounding = append(spec.Process.Capabilities.Bounding, c.name)
	}
	profile, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		return nil, fmt.Errorf("cannot evaluate the system call profile: %w", err)
	}
	return profile, nil
}

// profileRules sorts a profile by system call number; names that this
// processor lacks fall away.
func profileRules(p *specs.LinuxSeccomp) ([]rule, uint32, error) {
	if p.DefaultAction != specs.ActErrno {
		return nil, 0, fmt.Errorf("cannot compile a profile whose default is %s", p.DefaultAction)
	}
	denied := uint32(unix.EPERM)
	if p.DefaultErrnoRet != nil {
		denied = uint32(*p.DefaultErrnoRet)
	}
	numbers := map[string]uint32{}
	fields := strings.Fields(syscallNumbers)
	for i := 0; i+1 < len(fields); i += 2 {
		n, err := strconv.ParseUint(fields[i+1], 10, 32)
		if err != nil {
			return nil, 0, fmt.Errorf("cannot read the system call numbers: %w", err)
		}
		numbers[fields[i]] = uint32(n)
	}
	byNumber := map[uint32]*rule{}
	for _, call := range p.Syscalls {
		for _, name := range call.Names {
			n, ok := numbers[name]
			if !ok {
				continue
			}
			r := byNumber[n]
			if r == nil {
				r = &rule{number: n, errno: denied}
				byNumber[n] = r
			}
			switch {
			case call.Action == specs.ActAllow && len(call.Args) == 0:
				r.always = true
			case call.Action == specs.ActAllow:
				r.ways = append(r.ways, call.Args)
			case call.Action == specs.ActErrno && len(call.Args) == 0 && call.ErrnoRet != nil:
				r.errno = uint32(*call.ErrnoRet)
			default:
				return nil, 0, fmt.Errorf("cannot compile the profile's rule for %s", name)
			}
		}
	}
	var rules []rule
	for _, r := range byNumber {
		rules = append(rules, *r)
	}
	slices.SortFunc(rules, func(a, b rule) int { return int(a.number) - int(b.number) })
	return rules, denied, nil
}

// segment is a range of numbers, from first to the next segment's first, that
// share an answer.
type segment struct {
	first uint32
	rule  *rule // nil: denied
}

func (s *segment) same(r *rule) bool {
	if s.rule == nil || r == nil {
		return s.rule == r
	}
	if len(s.rule.ways)+len(r.ways) > 0 && !(s.rule.always && r.always) {
		return false
	}
	return s.rule.always == r.always && (r.always || s.rule.errno == r.errno)
}

// compile makes a binary search over ranges of numbers: the kernel runs the
// filter once for each number when it is attached, so a list of a few hundred
// comparisons costs ten times as much.
func compile(rules []rule, denied uint32) ([]bpf.Instruction, error) {
	segments := []segment{{first: 0}}
	add := func(first uint32, r *rule) {
		last := &segments[len(segments)-1]
		if last.first == first {
			last.rule = r
			if len(segments) > 1 && segments[len(segments)-2].same(r) {
				segments = segments[:len(segments)-1]
			}
		} else if !last.same(r) {
			segments = append(segments, segment{first: first, rule: r})
		}
	}
	for i := range rules {
		add(rules[i].number, &rules[i])
		add(rules[i].number+1, nil)
	}
	deny := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | denied}
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		deny,
		bpf.LoadAbsolute{Off: dataNumber, Size: 4},
		// x32 numbers lie above all segments that allow anything.
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1},
		deny,
	}
	tree, err := search(segments, denied)
	return append(prog, tree...), err
}

func search(s []segment, denied uint32) ([]bpf.Instruction, error) {
	if len(s) == 1 {
		return answer(s[0].rule, denied)
	}
	mid := len(s) / 2
	low, err := search(s[:mid], denied)
	if err != nil {
		return nil, err
	}
	high, err := search(s[mid:], denied)
	if err != nil {
		return nil, err
	}
	var out []bpf.Instruction
	if len(low) < 256 {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: s[mid].first, SkipTrue: uint8(len(low))})
	} else {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: s[mid].first, SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(low))})
	}
	return append(append(out, low...), high...), nil
}

// answer is the code for one segment.
func answer(r *rule, denied uint32) ([]bpf.Instruction, error) {
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	if r == nil {
		return []bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | denied}}, nil
	}
	if r.always {
		return []bpf.Instruction{allow}, nil
	}
	var out []bpf.Instruction
	for _, way := range r.ways {
		code, err := allOf(way)
		if err != nil {
			return nil, err
		}
		out = append(out, code...)
	}
	return append(out, bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | r.errno}), nil
}

// allOf allows when every condition holds and otherwise falls through. It is
// built from the end: a condition that fails jumps behind all that follows.
func allOf(conditions []specs.LinuxSeccompArg) ([]bpf.Instruction, error) {
	code := []bpf.Instruction{bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}}
	for _, c := range slices.Backward(conditions) {
		test, err := condition(&c, uint8(len(code)))
		if err != nil {
			return nil, err
		}
		code = append(test, code...)
	}
	return code, nil
}

// condition compares a 64-bit argument half by half; it falls through when it
// holds and skips past the next rest instructions when not.
func condition(c *specs.LinuxSeccompArg, rest uint8) ([]bpf.Instruction, error) {
	low := bpf.LoadAbsolute{Off: dataArgs + 8*uint32(c.Index), Size: 4}
	high := bpf.LoadAbsolute{Off: low.Off + 4, Size: 4}
	lo, hi := uint32(c.Value), uint32(c.Value>>32)
	switch c.Op {
	case specs.OpEqualTo:
		return []bpf.Instruction{high, bpf.JumpIf{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 2 + rest},
			low, bpf.JumpIf{Cond: bpf.JumpEqual, Val: lo, SkipFalse: rest}}, nil
	case specs.OpMaskedEqual:
		return []bpf.Instruction{
			high, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: hi},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(c.ValueTwo >> 32), SkipFalse: 3 + rest},
			low, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: lo},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(c.ValueTwo), SkipFalse: rest}}, nil
	case specs.OpLessThan:
		return []bpf.Instruction{high, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: hi, SkipTrue: 3 + rest},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 2},
			low, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: lo, SkipTrue: rest}}, nil
	case specs.OpGreaterThan:
		return []bpf.Instruction{high, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: hi, SkipTrue: 3},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 2 + rest},
			low, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: lo, SkipFalse: rest}}, nil
	}
	return nil, fmt.Errorf("cannot compile the profile's operator %s", c.Op)
}
