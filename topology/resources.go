package topology

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	minMemory    = 1 << 20 // with less no program starts
	minCPUs      = 0.01    // a cgroup's least quota is 1 ms of 100 ms
	maxCPUs      = 8192    // the kernel's NR_CPUS on any machine
	maxCPUNumber = maxCPUs - 1
)

// rlimits are the names of getrlimit(2) without RLIMIT_.
func rlimits() []string {
	return []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
		"rtprio", "rttime", "sigpending", "stack"}
}

// resources reads every limit of a station, also those below deploy.
func (l *loader) resources(s *stationDraft) {
	r, body := &s.out.Resources, s.body
	deploy := body.get("deploy").get("resources")
	limits, reserved := deploy.get("limits"), deploy.get("reservations")

	s.out.MemLimit = l.memory(l.once(body, "mem_limit", limits.get("memory")))
	r.MemReservation = l.memory(l.once(body, "mem_reservation", reserved.get("memory")))
	r.CPUs = l.cpus(l.once(body, "cpus", limits.get("cpus")))
	if n := l.once(body, "pids_limit", limits.get("pids")); n != nil {
		limit, _ := strconv.ParseInt(n.text, 10, 64)
		if limit < -1 || limit == 0 {
			l.spoil(n, fmt.Sprintf("pids_limit cannot be %d", limit), "a positive number, or -1 for no limit")
		}
		s.out.PidsLimit = max(limit, 0)
	}
	if n := body.get("mem_reservation"); n != nil && s.out.MemLimit != 0 && r.MemReservation > s.out.MemLimit {
		l.spoil(n, "mem_reservation is larger than mem_limit", "a reservation is at most the limit")
	}
	l.swap(s)
	if n := body.get("cpu_shares"); n != nil {
		r.CPUShares = l.within(n, 2, 262144, "1024 is usual")
	} else if share := l.cpus(reserved.get("cpus")); share > 0 {
		r.CPUShares = min(max(int64(share*1024), 2), 262144)
	}
	if n := body.get("cpuset"); n != nil {
		r.CPUSet = n.text
		if problem := cpusetProblem(n.text); problem != "" {
			l.spoil(n, fmt.Sprintf("%s is not a set of processors: %s", quoted(n.text), problem), "write numbers and ranges: 0-3,7")
		}
	}
	if n := body.get("shm_size"); n != nil {
		r.ShmSize = l.size(n)
	}
	if n := body.get("oom_score_adj"); n != nil {
		s.out.OOMScoreAdj = int(l.within(n, -1000, 1000, "the kernel ends those with more first"))
	}
	s.out.Ulimits = l.ulimits(body.get("ulimits"))
	r.Blkio = l.blkio(body.get("blkio_config"))
}

// once returns the value of a key that may also stand below deploy; compose
// too takes both only when they are the same.
func (l *loader) once(body *node, key string, deployed *node) *node {
	n := body.get(key)
	if n == nil {
		return deployed
	}
	if deployed != nil && deployed.text != n.text {
		l.spoil(deployed, fmt.Sprintf("%s is %s in the station", key, quoted(n.text)), "keep one of the two")
	}
	return n
}

// within reads a whole number of a range.
func (l *loader) within(n *node, low, high int64, hint string) int64 {
	v, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil || v < low || v > high {
		l.spoil(n, fmt.Sprintf("%s is out of range", quoted(n.text)), fmt.Sprintf("from %d to %d; %s", low, high, hint))
	}
	return v
}

func (l *loader) size(n *node) int64 {
	size, ok := parseBytes(n.text)
	if !ok {
		l.spoil(n, fmt.Sprintf("%s is not a size", quoted(n.text)), "write bytes, or a number with k, m or g: 256m")
	}
	return size
}

func (l *loader) memory(n *node) int64 {
	if n == nil {
		return 0
	}
	size := l.size(n)
	if !n.bad && size < minMemory {
		l.spoil(n, fmt.Sprintf("%s of memory is too little", quoted(n.text)), "at least 1m")
	}
	return size
}

func (l *loader) cpus(n *node) float64 {
	if n == nil {
		return 0
	}
	v, err := strconv.ParseFloat(n.text, 64)
	if err != nil || math.IsNaN(v) || v < minCPUs || v > maxCPUs {
		l.spoil(n, fmt.Sprintf("cpus cannot be %s", quoted(n.text)), fmt.Sprintf("a number of processors from %g to %d, like 0.5", minCPUs, maxCPUs))
		return 0
	}
	return v
}

func (l *loader) swap(s *stationDraft) {
	n := s.body.get("memswap_limit")
	if n == nil || n.text == "0" {
		return
	}
	if n.text == "-1" {
		s.out.Resources.MemSwapLimit = -1
		return
	}
	size := l.size(n)
	s.out.Resources.MemSwapLimit = size
	switch {
	case n.bad || s.body.spoiled("mem_limit", "deploy"):
	case s.out.MemLimit == 0:
		l.spoil(n, "memswap_limit is set and mem_limit is not", "it is memory and swap together: set mem_limit too")
	case size < s.out.MemLimit:
		l.spoil(n, "memswap_limit is less than mem_limit", "it is memory and swap together: at least mem_limit")
	}
}

var cpusetPart = regexp.MustCompile(`^([0-9]{1,5})(?:-([0-9]{1,5}))?$`)

// cpusetProblem tells what is wrong with a list of processors in the form of
// cpuset(7).
func cpusetProblem(s string) string {
	for part := range strings.SplitSeq(s, ",") {
		m := cpusetPart.FindStringSubmatch(part)
		if m == nil {
			return quoted(part) + " is neither a number nor a range"
		}
		first, _ := strconv.Atoi(m[1])
		last := first
		if m[2] != "" {
			last, _ = strconv.Atoi(m[2])
		}
		switch {
		case last < first:
			return part + " runs backwards"
		case last > maxCPUNumber:
			return fmt.Sprintf("no machine has processor %d", last)
		}
	}
	return ""
}

// minFiles is the least limit of open files: with 3 the dynamic linker can't
// open a library, and up to 6 the built-in image's programs end as they start.
const minFiles = 8

func (l *loader) ulimits(n *node) []Ulimit {
	var out []Ulimit
	for _, p := range n.all() {
		if p.val.bad {
			continue
		}
		if !slices.Contains(rlimits(), p.key) {
			hint := nearestHint(p.key, rlimits(), "the kernel's are "+strings.Join(rlimits(), ", "))
			l.report(p.at, fmt.Sprintf("there is no limit %s", quoted(p.key)), hint)
			continue
		}
		soft, hard := p.val, p.val
		if p.val.kind == mapping {
			if soft, hard = p.val.get("soft"), p.val.get("hard"); soft == nil || hard == nil {
				continue // said already
			}
		}
		u := Ulimit{Name: p.key}
		u.Soft, _ = strconv.ParseInt(soft.text, 10, 64)
		u.Hard, _ = strconv.ParseInt(hard.text, 10, 64)
		switch {
		case u.Soft < -1 || u.Hard < -1:
			l.spoil(p.val, fmt.Sprintf("limit %s cannot be negative", p.key), "-1 is unlimited")
		case u.Hard != -1 && (u.Soft == -1 || u.Soft > u.Hard):
			l.spoil(p.val, fmt.Sprintf("limit %s is softly more than it is hard", p.key), "soft is at most hard")
		case u.Name == "nofile" && u.Soft != -1 && u.Soft < minFiles:
			l.spoil(soft, fmt.Sprintf("nofile of %d is too few for a program to start", u.Soft), fmt.Sprintf("at least %d", minFiles))
		case u.Name == "nofile" && u.Hard == -1:
			l.spoil(p.val, "nofile cannot be unlimited", "the kernel's bound is fs.nr_open, mostly 1048576: write a number")
		}
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b Ulimit) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (l *loader) blkio(n *node) (b Blkio) {
	if w := n.get("weight"); w != nil {
		b.Weight = int(l.within(w, 10, 1000, "500 is usual"))
	}
	for _, d := range n.get("weight_device").good() {
		if path, w := d.get("path"), d.get("weight"); path != nil && w != nil {
			if p, ok := l.absolute(path); ok {
				b.WeightDevice = append(b.WeightDevice, BlkioWeight{p, int(l.within(w, 10, 1000, "500 is usual"))})
			}
		}
	}
	rates := func(key string, bytes bool) (out []BlkioRate) {
		for _, d := range n.get(key).good() {
			path, r := d.get("path"), d.get("rate")
			if path == nil || r == nil {
				continue
			}
			p, ok := l.absolute(path)
			if !ok {
				continue
			}
			rate := BlkioRate{Path: p}
			if bytes {
				rate.Rate = l.size(r)
			} else {
				rate.Rate = l.within(r, 1, math.MaxInt64, "operations a second")
			}
			out = append(out, rate)
		}
		return out
	}
	b.DeviceReadBps, b.DeviceWriteBps = rates("device_read_bps", true), rates("device_write_bps", true)
	b.DeviceReadIOps, b.DeviceWriteIOps = rates("device_read_iops", false), rates("device_write_iops", false)
	return b
}
