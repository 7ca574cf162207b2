// Command pingpong measures ways between network namespaces beside each other.
// In each round it takes all of them in turn, each for a moment, so that what
// else a machine does meanwhile meets all of them alike; it prints medians over
// the rounds, also of the ratios within each.
//
//	pingpong serve PORT           answers on PORT (TCP and UDP) and PORT+1 (short connections)
//	pingpong ask ROUNDS <CASES    measures
//
// A case is a line of NAME NETNS KIND ADDRESS PID BASE: what NETNS (a path) sees
// as ADDRESS is measured, together with the CPU time that PID takes for it ("-"
// for nobody) and as a ratio to the cases BASE,BASE... of the same kind. Kinds are
// tcp and udp, round trips of 64 bytes; connect, a connection for each; and stream
// and datagrams, for which iperf3 runs.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	size = 64 // bytes of a message
	// warm are round trips before those that count, in which sleeping threads and
	// caches wake.
	warm, trips, connects = 30, 300, 30
	// answerTime is after what silence a message is lost.
	answerTime = time.Second
)

func main() {
	debug.SetGCPercent(-1) // it allocates little, and never while it measures
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "serve":
		err = serve(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "ask":
		err = ask(os.Args[2])
	default:
		err = errors.New("usage: pingpong serve PORT | pingpong ask ROUNDS <CASES")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pingpong:", err)
		os.Exit(1)
	}
}

// The sockets block, and a thread each waits in the kernel: Go's poller would be
// most of what is measured.

func serve(port string) error {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	long, err := listen(int(n))
	if err != nil {
		return err
	}
	short, err := listen(int(n) + 1)
	if err != nil {
		return err
	}
	datagrams, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(datagrams, &unix.SockaddrInet4{Port: int(n)}); err != nil {
		return err
	}
	go func() {
		runtime.LockOSThread()
		buf := make([]byte, size)
		for {
			n, from, err := unix.Recvfrom(datagrams, buf, 0)
			if err == nil {
				_ = unix.Sendto(datagrams, buf[:n], 0, from)
			}
		}
	}()
	go func() {
		runtime.LockOSThread()
		for {
			if fd, err := accept(short); err == nil {
				echo(fd)
			}
		}
	}()
	for {
		if fd, err := accept(long); err == nil {
			go func() {
				runtime.LockOSThread()
				echo(fd)
			}()
		}
	}
}

func listen(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return 0, err
	}
	return fd, unix.Listen(fd, 4096)
}

func accept(l int) (int, error) {
	fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return 0, err
	}
	return fd, unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1)
}

func echo(fd int) {
	defer unix.Close(fd)
	buf := make([]byte, size)
	for {
		n, err := unix.Read(fd, buf)
		if n <= 0 || err != nil {
			return
		}
		if _, err := unix.Write(fd, buf[:n]); err != nil {
			return
		}
	}
}

// way is one case.
type way struct {
	name, netns, kind, base string
	to                      netip.AddrPort
	pid                     string
	fd                      int

	values []float64 // of each round, NaN where it failed: microseconds, or Gbit/s
	cpu    []float64 // microseconds of PID for each message, or for each MB
	lost   int
}

func (w *way) bulk() bool { return w.kind == "stream" || w.kind == "datagrams" }

func ask(text string) error {
	rounds, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	var ways []*way
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) == 0 {
			continue
		}
		if len(f) != 6 {
			return fmt.Errorf("no case: %q", lines.Text())
		}
		w := &way{name: f[0], netns: f[1], kind: f[2], pid: f[4], base: f[5]}
		if w.to, err = netip.ParseAddrPort(f[3]); err != nil {
			return err
		}
		ways = append(ways, w)
	}
	runtime.LockOSThread() // its namespace is changed
	for _, w := range ways {
		if err := w.open(); err != nil {
			return fmt.Errorf("%s %s: %w", w.name, w.kind, err)
		}
	}
	order := slices.Clone(ways)
	for range rounds {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, w := range order {
			w.measure()
		}
	}
	report(ways)
	return nil
}

func (w *way) enter() error {
	ns, err := os.Open(w.netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

func (w *way) open() (err error) {
	if err := w.enter(); err != nil {
		return err
	}
	switch w.kind {
	case "tcp":
		w.fd, err = w.dial(unix.SOCK_STREAM)
	case "udp":
		w.fd, err = w.dial(unix.SOCK_DGRAM)
	case "connect", "stream", "datagrams":
	default:
		err = errors.New("unknown kind")
	}
	return err
}

func (w *way) dial(kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	limit := unix.NsecToTimeval(int64(answerTime))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return 0, err
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1); err != nil {
			return 0, err
		}
	}
	return fd, unix.Connect(fd, &unix.SockaddrInet4{Port: int(w.to.Port()), Addr: w.to.Addr().As4()})
}

// trip sends a message and waits for it to come back.
func trip(fd int, buf []byte) error {
	if _, err := unix.Write(fd, buf); err != nil {
		return err
	}
	for got := 0; got < size; {
		n, err := unix.Read(fd, buf[got:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("it has ended")
		}
		got += n
	}
	return nil
}

func (w *way) measure() {
	var value, cost float64
	if w.bulk() {
		value, cost = w.iperf()
	} else {
		value, cost = w.trips()
	}
	if math.IsNaN(value) {
		w.lost++
	}
	w.values, w.cpu = append(w.values, value), append(w.cpu, cost)
}

func (w *way) trips() (float64, float64) {
	buf := make([]byte, size)
	once, many, before := func() error { return trip(w.fd, buf) }, trips, warm
	if w.kind == "connect" {
		if w.enter() != nil {
			return math.NaN(), 0
		}
		many, before = connects, connects/10
		once = func() error {
			fd, err := w.dial(unix.SOCK_STREAM)
			if fd > 0 {
				defer unix.Close(fd)
			}
			if err != nil {
				return err
			}
			return trip(fd, buf)
		}
	}
	took := make([]float64, 0, many)
	for range before {
		if once() != nil {
			return math.NaN(), 0
		}
	}
	used := cpu(w.pid)
	for range many {
		start := time.Now()
		if once() != nil {
			return math.NaN(), 0
		}
		took = append(took, float64(time.Since(start).Nanoseconds())/1000)
	}
	return median(took), (cpu(w.pid) - used) / float64(many)
}

// iperf has iperf3 send for a second. Its own CPU time is not looked at.
func (w *way) iperf() (float64, float64) {
	if w.enter() != nil {
		return math.NaN(), 0
	}
	args := []string{"-c", w.to.Addr().String(), "-p", fmt.Sprint(w.to.Port()), "-t", "1", "-J"}
	if w.kind == "datagrams" {
		args = append(args, "-u", "-b", "0", "-l", "1400")
	}
	used := cpu(w.pid)
	out, err := exec.Command("iperf3", args...).Output() // of this thread's namespace
	used = cpu(w.pid) - used
	var result struct {
		End struct {
			Received struct {
				Bytes float64 `json:"bytes"`
				Rate  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
			Sum struct {
				Bytes float64 `json:"bytes"`
				Rate  float64 `json:"bits_per_second"`
				Lost  float64 `json:"lost_percent"`
			} `json:"sum"`
		} `json:"end"`
	}
	if err != nil || json.Unmarshal(out, &result) != nil {
		return math.NaN(), 0
	}
	rate, bytes := result.End.Received.Rate, result.End.Received.Bytes
	if w.kind == "datagrams" {
		rate, bytes = result.End.Sum.Rate*(1-result.End.Sum.Lost/100), result.End.Sum.Bytes*(1-result.End.Sum.Lost/100)
	}
	return rate / 1e9, used / (bytes / 1e6)
}

// cpu is what all threads of a process have used, in microseconds
// (Documentation/scheduler/sched-stats.rst).
func cpu(pid string) float64 {
	sum := 0.0
	if pid == "-" {
		return 0
	}
	files, _ := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if f := strings.Fields(string(text)); err == nil && len(f) == 3 {
			n, _ := strconv.ParseFloat(f[0], 64)
			sum += n / 1000
		}
	}
	return sum
}

func report(ways []*way) {
	fmt.Printf("%-10s %-14s %9s %9s %9s %7s %9s  %s\n", "kind", "way", "median", "quarter", "3quarters", "failed", "relay CPU", "ratios")
	for _, w := range ways {
		relay, ratios := "-", []string{}
		if w.pid != "-" {
			relay = fmt.Sprintf("%.2f", median(w.cpu))
		}
		for _, base := range ways {
			if !slices.Contains(strings.Split(w.base, ","), base.name) || base.kind != w.kind || base == w {
				continue
			}
			var all []float64
			for i := range w.values {
				all = append(all, w.values[i]/base.values[i])
			}
			ratios = append(ratios, fmt.Sprintf("%.2f of %s (%.2f to %.2f)", median(all), base.name, at(all, 1, 4), at(all, 3, 4)))
		}
		fmt.Printf("%-10s %-14s %9.2f %9.2f %9.2f %7d %9s  %s\n", w.kind, w.name, median(w.values), at(w.values, 1, 4), at(w.values, 3, 4), w.lost, relay, strings.Join(ratios, ", "))
	}
}

func median(all []float64) float64 { return at(all, 1, 2) }

// at is the value below which n of m parts lie, of those that are numbers.
func at(all []float64, n, m int) float64 {
	sorted := slices.DeleteFunc(slices.Clone(all), math.IsNaN)
	if len(sorted) == 0 {
		return math.NaN()
	}
	slices.Sort(sorted)
	return sorted[len(sorted)*n/m]
}
