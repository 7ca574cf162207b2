package integrity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Make hashes the sealed paths on an assembled root. What can't be sealed (a
// missing path, a FIFO, a file that can't be read) is an error that names all
// of it.
func Make(ctx context.Context, root *os.File, paths []string) (Manifest, error) {
	found, err := Scan(ctx, root, paths)
	if err != nil {
		return nil, err
	}
	m := make(Manifest, 0, len(found))
	var problems []error
	for _, f := range found {
		if f.SHA256 == "" {
			problems = append(problems, fmt.Errorf("cannot seal %s: %s", printable(f.Path), f.Problem))
			continue
		}
		m = append(m, Entry{Path: f.Path, SHA256: f.SHA256})
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return m, nil
}

// Check compares the sealed paths on an assembled root with a manifest. The
// error says that checking itself was not possible.
func Check(ctx context.Context, root *os.File, paths []string, m Manifest) ([]Bad, error) {
	found, err := Scan(ctx, root, paths)
	if err != nil {
		return nil, err
	}
	return Compare(paths, m, found), nil
}

// Scan hashes every file under the sealed paths, in parallel. root may be an
// O_PATH descriptor of another mount namespace. The result is sorted by path
// and names every path once.
func Scan(ctx context.Context, root *os.File, paths []string) ([]Found, error) {
	for _, p := range paths {
		if err := checkPath(p); err != nil {
			return nil, fmt.Errorf("cannot scan a sealed path: %w", err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	workers := runtime.NumCPU()
	s := &scanner{
		ctx:  ctx,
		root: int(root.Fd()),
		// The queue bounds how many descriptors are open at a time.
		jobs: make(chan job, 16*workers),
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			if err := s.work(); err != nil {
				cancel(err)
			}
		})
	}
	err := s.walkAll(paths)
	close(s.jobs)
	wg.Wait()
	runtime.KeepAlive(root)
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot scan sealed files: %w", err)
	}
	slices.SortFunc(s.found, func(a, b Found) int { return cmp.Compare(a.Path, b.Path) })
	return s.found, nil
}

// scanner is one run of Scan.
type scanner struct {
	ctx  context.Context
	root int
	jobs chan job

	mu      sync.Mutex
	found   []Found
	visited int // touched by the walker only
}

// job is a regular file to hash: an O_PATH descriptor, which the worker closes.
type job struct {
	path string
	fd   int
}

func (s *scanner) report(f Found) {
	s.mu.Lock()
	s.found = append(s.found, f)
	s.mu.Unlock()
}

// walkAll walks every sealed path that no other one covers; of a covered one
// only the existence is looked at.
func (s *scanner) walkAll(paths []string) error {
	paths = slices.Clone(paths)
	slices.Sort(paths)
	paths = slices.Compact(paths)
	for _, p := range paths {
		covered := slices.ContainsFunc(paths, func(q string) bool { return q != p && covers(q, p) })
		fd, err := openInRoot(s.root, p)
		if err != nil {
			absent := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
			if absent || !covered {
				s.report(Found{Path: p, Problem: describe(err), Absent: absent})
			}
			continue
		}
		if covered {
			unix.Close(fd)
			continue
		}
		if err := s.visit(fd, p, nil); err != nil {
			return err
		}
	}
	return nil
}

// describe words an error for a person.
func describe(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		return "it does not exist"
	case errors.Is(err, unix.ELOOP):
		return "its links go in circles or leave through /proc"
	}
	return err.Error()
}
