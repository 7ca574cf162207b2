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

// rule is what a profile says of one system call: ways, each with an answer,
// and the answer when none fits.
type rule struct {
	number uint32
	ways   []way
	answer uint32
}

type way struct {
	conditions []specs.LinuxSeccompArg
	answer     uint32
}

// defaultFilter compiles Docker's default profile for a set of capabilities.
func defaultFilter(caps uint64) (*unix.SockFprog, error) {
	prog, err := compileDefault(caps)
	if err != nil {
		return nil, err
	}
	return assemble(prog)
}

// customFilter compiles a profile in Docker's JSON format.
func customFilter(text string, caps uint64) (*unix.SockFprog, error) {
	profile, err := seccomp.LoadProfile(text, capSpec(caps))
	if err != nil {
		return nil, fmt.Errorf("cannot read the system call profile: %w", err)
	}
	prog, err := compileProfile(profile)
	if err != nil {
		return nil, err
	}
	return assemble(prog)
}

func assemble(prog []bpf.Instruction) (*unix.SockFprog, error) {
	raw, err := bpf.Assemble(prog)
	if err != nil {
		return nil, fmt.Errorf("cannot assemble the system call filter: %w", err)
	}
	if len(raw) > maxFilter {
		return nil, fmt.Errorf("system call filter of %d instructions is larger than the kernel's %d", len(raw), maxFilter)
	}
	insns := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		insns[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}, nil
}

const maxFilter = 4096 // BPF_MAXINSNS of linux/bpf_common.h

func compileDefault(caps uint64) ([]bpf.Instruction, error) {
	profile, err := defaultProfile(caps)
	if err != nil {
		return nil, err
	}
	return compileProfile(profile)
}

func compileProfile(profile *specs.LinuxSeccomp) ([]bpf.Instruction, error) {
	if syscallNumbers == "" {
		return nil, &containers.Unsupported{Feature: "a system call filter for this processor"}
	}
	rules, other, err := profileRules(profile)
	if err != nil {
		return nil, err
	}
	return compile(rules, other)
}

// capSpec tells the profile's conditions about capabilities.
func capSpec(caps uint64) *specs.Spec {
	return &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capList(caps)}}}
}

// defaultProfile evaluates Docker's profile for capabilities, this processor
// and this kernel.
func defaultProfile(caps uint64) (*specs.LinuxSeccomp, error) {
	profile, err := seccomp.GetDefaultProfile(capSpec(caps))
	if err != nil {
		return nil, fmt.Errorf("cannot evaluate the system call profile: %w", err)
	}
	return profile, nil
}

// answerOf is the filter's return value for an action (seccomp(2)).
func answerOf(action specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	number := uint32(unix.EPERM)
	if errno != nil {
		number = uint32(*errno) & unix.SECCOMP_RET_DATA
	}
	switch action {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | number, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | number, nil
	}
	return 0, fmt.Errorf("cannot compile the profile's action %s", action)
}

// profileRules sorts a profile by system call number and gives the answer for
// all others; names that this processor lacks fall away.
func profileRules(p *specs.LinuxSeccomp) ([]rule, uint32, error) {
	other, err := answerOf(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, 0, err
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
		answer, err := answerOf(call.Action, call.ErrnoRet)
		if err != nil {
			return nil, 0, err
		}
		if answer == other {
			continue // as runc does
		}
		for _, name := range call.Names {
			n, ok := numbers[name]
			if !ok {
				continue
			}
			r := byNumber[n]
			if r == nil {
				r = &rule{number: n, answer: other}
				byNumber[n] = r
			}
			if len(call.Args) == 0 {
				r.answer = answer
			}
			for _, conditions := range alternatives(call.Args) {
				r.ways = append(r.ways, way{conditions, answer})
			}
		}
	}
	var rules []rule
	for _, r := range byNumber {
		if r.answer == unix.SECCOMP_RET_ALLOW && other != unix.SECCOMP_RET_ALLOW {
			r.ways = nil // allowed in any case
		}
		rules = append(rules, *r)
	}
	slices.SortFunc(rules, func(a, b rule) int { return int(a.number) - int(b.number) })
	return rules, other, nil
}

// alternatives are the conditions together, or each alone where two are about
// the same argument, as runc has it.
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	if len(args) == 0 {
		return nil
	}
	seen := map[uint]bool{}
	for _, a := range args {
		if seen[a.Index] {
			var each [][]specs.LinuxSeccompArg
			for _, a := range args {
				each = append(each, []specs.LinuxSeccompArg{a})
			}
			return each
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

// segment is a range of numbers, from first to the next segment's first, that
// share an answer.
type segment struct {
	first uint32
	rule  *rule // nil: none
}

func (s *segment) same(r *rule) bool {
	if s.rule == nil || r == nil {
		return s.rule == r
	}
	return len(s.rule.ways)+len(r.ways) == 0 && s.rule.answer == r.answer
}

// compile makes a binary search over ranges of numbers: the kernel runs the
// filter once for each number when it is attached, so a list of a few hundred
// comparisons costs ten times as much.
func compile(rules []rule, other uint32) ([]bpf.Instruction, error) {
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
	// Another architecture's numbers mean something else.
	deny := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	prog := []bpf.Instruction{
		bpf.LoadAbsolute{Off: dataArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		deny,
		bpf.LoadAbsolute{Off: dataNumber, Size: 4},
		// x32 numbers lie above all segments that allow anything.
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1},
		deny,
	}
	tree, err := search(segments, other)
	return append(prog, tree...), err
}

func search(s []segment, other uint32) ([]bpf.Instruction, error) {
	if len(s) == 1 {
		return answer(s[0].rule, other)
	}
	mid := len(s) / 2
	low, err := search(s[:mid], other)
	if err != nil {
		return nil, err
	}
	high, err := search(s[mid:], other)
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
func answer(r *rule, other uint32) ([]bpf.Instruction, error) {
	if r == nil {
		return []bpf.Instruction{bpf.RetConstant{Val: other}}, nil
	}
	var out []bpf.Instruction
	for _, w := range r.ways {
		code, err := allOf(&w)
		if err != nil {
			return nil, err
		}
		out = append(out, code...)
	}
	return append(out, bpf.RetConstant{Val: r.answer}), nil
}

// allOf answers when every condition holds and otherwise falls through. It is
// built from the end: a condition that fails jumps behind all that follows.
func allOf(w *way) ([]bpf.Instruction, error) {
	code := []bpf.Instruction{bpf.RetConstant{Val: w.answer}}
	for _, c := range slices.Backward(w.conditions) {
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
	if c.Index > 5 {
		return nil, fmt.Errorf("cannot compile a condition about argument %d", c.Index)
	}
	low := bpf.LoadAbsolute{Off: dataArgs + 8*uint32(c.Index), Size: 4}
	high := bpf.LoadAbsolute{Off: low.Off + 4, Size: 4}
	lo, hi := uint32(c.Value), uint32(c.Value>>32)
	switch c.Op {
	case specs.OpEqualTo:
		return []bpf.Instruction{high, bpf.JumpIf{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 2 + rest},
			low, bpf.JumpIf{Cond: bpf.JumpEqual, Val: lo, SkipFalse: rest}}, nil
	case specs.OpNotEqual:
		return []bpf.Instruction{high, bpf.JumpIf{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 2},
			low, bpf.JumpIf{Cond: bpf.JumpEqual, Val: lo, SkipTrue: rest}}, nil
	case specs.OpLessEqual:
		return []bpf.Instruction{high, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: hi, SkipTrue: 3 + rest},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 2},
			low, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: lo, SkipTrue: rest}}, nil
	case specs.OpGreaterEqual:
		return []bpf.Instruction{high, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: hi, SkipTrue: 3},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: hi, SkipFalse: 2 + rest},
			low, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: lo, SkipTrue: rest}}, nil
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
