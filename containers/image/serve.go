package image

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Exit codes of the image's programs.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Where a station with a certificate has it.
const (
	stationKey         = "/etc/platelayer/tls/key.pem"
	stationCertificate = "/etc/platelayer/tls/cert.pem"
)

// answerJSON is what /json answers.
type answerJSON struct {
	Hostname  string   `json:"hostname"`
	Addresses []string `json:"addresses"`
	Remote    string   `json:"remote"`
	Method    string   `json:"method"`
	Host      string   `json:"host"`
	Path      string   `json:"path"`
	Text      string   `json:"text,omitempty"`
}

// Serve is a small HTTP server that tells who answered. As process 1 of a
// station it has to handle the signals that end it: the kernel has no default
// for that process.
func Serve(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", ":80", "`address` to listen on")
	secure := flags.String("listen-tls", ":443", "`address` to listen on where the station has a certificate")
	text := flags.String("text", "", "`text` to answer with, before who answered")
	if code, ok := parse(flags, args); !ok {
		return code
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "serve: unexpected argument %q\n", flags.Arg(0))
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *listen)
	if err != nil {
		fmt.Fprintf(stderr, "serve: cannot listen: %v\n", err)
		return exitFailed
	}
	server := &http.Server{Handler: serveHandler(*text), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	fmt.Fprintf(stdout, "serving on %s\n", l.Addr())
	if _, err := os.Stat(stationKey); err == nil {
		t, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *secure)
		if err != nil {
			fmt.Fprintf(stderr, "serve: cannot listen: %v\n", err)
			return exitFailed
		}
		fmt.Fprintf(stdout, "serving on %s with TLS\n", t.Addr())
		go func() {
			if err := server.ServeTLS(t, stationCertificate, stationKey); !errors.Is(err, http.ErrServerClosed) {
				fmt.Fprintf(stderr, "serve: %v\n", err)
				stop()
			}
		}()
	}
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintf(stderr, "serve: %v\n", err)
		return exitFailed
	}
	return exitDone
}

// parse parses flags; when not ok, the program ends with code.
func parse(flags *flag.FlagSet, args []string) (code int, ok bool) {
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitDone, false
	case err != nil:
		return exitUsage, false
	}
	return exitDone, true
}

func serveHandler(text string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host, addrs := whoAmI()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if text != "" {
			fmt.Fprintln(w, text)
		}
		fmt.Fprintf(w, "hello from %s (%s)\nyou are %s\n", host, strings.Join(addrs, ", "), remoteHost(r))
	})
	mux.HandleFunc("/json", func(w http.ResponseWriter, r *http.Request) {
		host, addrs := whoAmI()
		w.Header().Set("Content-Type", "application/json")
		// An asker that went away is nobody to report to.
		_ = json.NewEncoder(w).Encode(answerJSON{
			Hostname: host, Addresses: addrs, Remote: remoteHost(r),
			Method: r.Method, Host: r.Host, Path: r.URL.Path, Text: text,
		})
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	return mux
}

func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// whoAmI is the host's name and its addresses but loopback and link-local
// ones.
func whoAmI() (host string, addrs []string) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	list, _ := net.InterfaceAddrs()
	addrs = []string{}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			addrs = append(addrs, n.IP.String())
		}
	}
	return host, addrs
}
