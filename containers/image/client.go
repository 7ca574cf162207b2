package image

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Fetch gets URLs and writes their bodies to stdout. The first failure is
// reported at once and the rest still tried; the code is 1 then.
func Fetch(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("fetch", flag.ContinueOnError)
	flags.SetOutput(stderr)
	count := flags.Int("n", 1, "fetch each URL `count` times")
	timeout := flags.Duration("timeout", 10*time.Second, "`duration` one fetch may take")
	if code, ok := parse(flags, args); !ok {
		return code
	}
	if flags.NArg() == 0 || *count < 1 || *timeout <= 0 {
		fmt.Fprintln(stderr, "usage: fetch [-n COUNT] [-timeout DURATION] URL...")
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// Each fetch connects anew, so that a load balancer has something to
	// choose, and goes straight to the host that was named.
	client := &http.Client{Timeout: *timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	code := exitDone
	for _, url := range flags.Args() {
		if !strings.Contains(url, "://") {
			url = "http://" + url
		}
		for range *count {
			if err := fetch(ctx, client, url, stdout); err != nil {
				fmt.Fprintf(stderr, "fetch: %v\n", err)
				code = exitFailed
			}
			if ctx.Err() != nil {
				return exitFailed
			}
		}
	}
	return code
}

func fetch(ctx context.Context, client *http.Client, url string, stdout io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("cannot fetch: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(stdout, resp.Body); err != nil {
		return fmt.Errorf("cannot fetch %s: %w", url, err)
	}
	if resp.StatusCode >= 400 {
		return fmt.Errorf("cannot fetch %s: the server answered %s", url, resp.Status)
	}
	return nil
}

// Lookup resolves names to addresses and addresses to names, one result a
// line, with what /etc/hosts and /etc/resolv.conf say.
func Lookup(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("lookup", flag.ContinueOnError)
	flags.SetOutput(stderr)
	timeout := flags.Duration("timeout", 10*time.Second, "`duration` one lookup may take")
	if code, ok := parse(flags, args); !ok {
		return code
	}
	if flags.NArg() == 0 || *timeout <= 0 {
		fmt.Fprintln(stderr, "usage: lookup [-timeout DURATION] NAME|ADDRESS...")
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	code := exitDone
	for _, name := range flags.Args() {
		results, err := lookup(ctx, name, *timeout)
		if err != nil {
			fmt.Fprintf(stderr, "lookup: %v\n", err)
			code = exitFailed
			continue
		}
		for _, result := range results {
			fmt.Fprintln(stdout, result)
		}
	}
	return code
}

func lookup(ctx context.Context, name string, timeout time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true}
	var results []string
	var err error
	if _, perr := netip.ParseAddr(name); perr == nil {
		results, err = resolver.LookupAddr(ctx, name)
	} else {
		results, err = resolver.LookupHost(ctx, name)
	}
	var dnsErr *net.DNSError
	if errors.As(err, &dnsErr) && dnsErr.IsNotFound {
		return nil, fmt.Errorf("cannot find %s: no such name", name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", name, err)
	}
	return results, nil
}
