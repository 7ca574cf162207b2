package lifecycle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"platelayer/containers/native"
	"platelayer/topology"
)

// Process is one process of a station as `top` shows it; its JSON form is
// stable. The station may have put anything into User and Command.
type Process struct {
	Station    string        `json:"station"`     // "cluster/station"
	User       string        `json:"user"`        // as the station's passwd has it, or the number
	Pid        int           `json:"pid"`         // on the machine
	InnerPid   int           `json:"inner_pid"`   // in the station
	CPUPercent float64       `json:"cpu_percent"` // of one processor, since the process started
	Memory     int64         `json:"memory"`      // bytes of it that are in memory, shared ones too
	CPU        time.Duration `json:"cpu"`         // nanoseconds of all processors
	Command    string        `json:"command"`
}

// Top lists the processes of stations that run, in the order of their pids.
func Top(l Layout, name string, which []*topology.Station) ([]Process, error) {
	if err := needRoot("see what stations run"); err != nil {
		return nil, err
	}
	all := []Process{}
	for _, s := range which {
		c, err := running(l, name, s)
		if err != nil {
			continue // it does not run, or has just ended
		}
		group := cgroup(name) + "/" + c.Container
		before, err := native.Processes(group)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		users, _ := native.UserNames(c.Process) // without them there are numbers
		var found []Process
		for _, pid := range before {
			if p, ok := readProcess(pid, users); ok {
				p.Station = s.ID()
				found = append(found, p)
			}
		}
		after, err := native.Processes(group)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		all = append(all, slices.DeleteFunc(found, func(p Process) bool { return !slices.Contains(after, p.Pid) })...)
	}
	return all, nil
}

// readProcess reads what the kernel tells of a process (proc_pid_status(5),
// proc_pid_stat(5), proc_pid_cmdline(5)); false where it has ended.
func readProcess(pid int, users map[int]string) (p Process, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	status, err1 := os.ReadFile(dir + "/status")
	stat, err2 := os.ReadFile(dir + "/stat")
	uptime, err3 := os.ReadFile("/proc/uptime")
	if errors.Join(err1, err2, err3) != nil {
		return p, false
	}
	p.Pid = pid
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "Uid:":
			uid, _ := strconv.Atoi(f[min(2, len(f)-1)]) // the effective one, as in ps(1)
			if p.User = users[uid]; p.User == "" {
				p.User = strconv.Itoa(uid)
			}
		case "NSpid:":
			p.InnerPid, _ = strconv.Atoi(f[len(f)-1])
		case "VmRSS:":
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			p.Memory = kib << 10
		}
	}
	// The name may hold anything, parentheses too.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	f := strings.Fields(string(stat[max(end+1, 0):]))
	if open < 0 || end < open || len(f) < 20 {
		return p, false
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever we run
	var ticks [3]uint64
	for i, field := range []int{11, 12, 19} { // utime, stime, starttime
		ticks[i], _ = strconv.ParseUint(f[field], 10, 64)
	}
	p.CPU = time.Duration(ticks[0]+ticks[1]) * tick
	var up float64 // seconds
	fmt.Sscan(string(uptime), &up)
	if lived := up - (time.Duration(ticks[2]) * tick).Seconds(); lived > tick.Seconds() {
		p.CPUPercent = 100 * p.CPU.Seconds() / lived
	}
	line, _ := os.ReadFile(dir + "/cmdline")
	p.Command = strings.TrimRight(strings.ReplaceAll(string(line), "\x00", " "), " ")
	if p.Command == "" { // as ps(1) shows what has ended and is not waited for
		p.Command = "[" + string(stat[open+1:end]) + "]"
	}
	return p, true
}
