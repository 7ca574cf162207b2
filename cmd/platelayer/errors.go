package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"

	"platelayer/containers"
	"platelayer/containers/image"
	"platelayer/lifecycle"
	"platelayer/policy"
	"platelayer/topology"
)

// Exit codes: DESIGN.md section 4.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInvalid     = 3
	exitIntegrity   = 4
	exitStation     = 5
	exitUnsupported = 6
	exitInterrupted = 130 // by Ctrl-C, as shells have it
)

// usageError is a command line that can't be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

// fileError is a topology file, or a compose file to import, that can't be
// read.
type fileError struct {
	path    string
	err     error
	compose bool
}

func (e *fileError) Error() string {
	what := "topology"
	if e.compose {
		what = "compose"
	}
	return fmt.Sprintf("cannot read the %s file %s: %v", what, e.path, e.err)
}
func (e *fileError) Unwrap() error { return e.err }

// exitCode is a command's own code that the program passes on.
type exitCode struct {
	code int
	err  error // told, where it is not nil
}

func (e *exitCode) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// finish tells an error and its hint, and turns it into an exit code. It is
// the only place that knows either.
func (a *app) finish(err error) int {
	if err == nil {
		return 0
	}
	var own *exitCode
	if errors.As(err, &own) {
		if own.err != nil {
			fmt.Fprintf(a.stderr, "platelayer: %s\n", harmless(own.err.Error()))
			if _, hint := classify(own.err); hint != "" {
				fmt.Fprintf(a.stderr, "hint: %s\n", hint)
			}
		}
		return own.code
	}
	var problems topology.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(a.stderr, strings.TrimRight(problems.Error(), "\n"))
		return exitInvalid
	}
	fmt.Fprintf(a.stderr, "platelayer: %s\n", harmless(err.Error()))
	code, hint := classify(err)
	if hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", hint)
	}
	return code
}

// classify gives an error's exit code and what the user can do about it.
func classify(err error) (code int, hint string) {
	var (
		usage      *usageError
		file       *fileError
		refused    *lifecycle.IntegrityError
		station    *lifecycle.StationError
		dynamic    image.DynamicError
		late       *lifecycle.TimeoutError
		lost       *lifecycle.KeeperEnded
		other      *lifecycle.OtherAPI
		down       *lifecycle.NotUp
		busy       *lifecycle.Busy
		unknown    *lifecycle.NotKnown
		selection  *topology.SelectionError
		unready    *lifecycle.Unfinished
		newer      *lifecycle.OtherFormat
		elsewhere  *lifecycle.Elsewhere
		unreadable *lifecycle.Unreadable
		wanting    *lifecycle.Wanting
		authority  *lifecycle.NoAuthority
		damaged    *lifecycle.BadAuthority
		attach     *lifecycle.Unattachable
		unfit      *topology.UnfitImage
		foreign    *lifecycle.ForeignImage
		noImage    *image.UnknownError
		denied     *image.RegistryError
		unreached  *image.UnreachableError
		platform   *image.NoPlatformError
		heldImage  *image.HeldError
		corrupt    *image.CorruptError
		lostBlob   *image.MissingError
		lostNames  *image.NamesError
		unfitStore *image.UnfitError
		damage     *image.DamageError
		change     *image.ChangeError
		badPolicy  *policy.BadError
		forbidden  *policy.RefusedError
		unlocked   *lifecycle.LockError
		outside    *lifecycle.OutsideError
		bundle     *lifecycle.OtherBundle
		machine    *lifecycle.OtherMachine
		taken      *lifecycle.Taken
		unfitKey   *containers.Impossible
	)
	switch {
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "if any flags in the group"):
		return exitUsage, "platelayer COMMAND --help says how it is used"
	case errors.As(err, &file):
		if file.compose {
			return exitInvalid, "name the compose file, or its folder: platelayer import FILE"
		}
		if _, none := composeFiles([]string{filepath.Dir(file.path)}); errors.Is(err, fs.ErrNotExist) && none == nil {
			return exitInvalid, "there is a compose file: platelayer import writes a topology file from it"
		}
		if errors.Is(err, fs.ErrNotExist) {
			return exitInvalid, "name the file (platelayer up FILE), or write a first one with: platelayer init"
		}
		return exitInvalid, ""
	case errors.As(err, &refused):
		hint = "if the change is meant, seal it anew with: platelayer seal"
		if !refused.Verified {
			hint = "nothing was started or changed; " + hint
		}
		if refused.OnImage() {
			hint += "; if an image is damaged, platelayer image verify --repair mends it"
		}
		return exitIntegrity, hint
	case errors.As(err, &badPolicy):
		return exitIntegrity, "nothing was started or changed; the machine's administrator can mend it: docs/policy.md"
	case errors.As(err, &forbidden):
		return exitIntegrity, "nothing was started or changed; the machine's administrator decides what may run: docs/policy.md"
	case errors.As(err, &bundle):
		return exitIntegrity, "nothing was loaded; --digest is what bundle save printed"
	case errors.As(err, &unlocked) && unlocked.Missing:
		return exitIntegrity, "platelayer lock adds what is missing, and drops what no station runs on"
	case errors.As(err, &unlocked):
		return exitIntegrity, "if the change is meant, write the lock anew with: platelayer lock --remote"
	case errors.As(err, &outside):
		return exitFailed, "put them into that folder, and name them by paths that begin there"
	case errors.As(err, &selection):
		return exitInvalid, "enable its profile with --profile NAME, or name the station with --only"
	case errors.As(err, &unready) && (errors.As(err, &station) || errors.As(err, &late)):
		return exitStation, "all else is as asked for; platelayer logs STATION tells more, and up or start tries it again"
	case errors.As(err, &station), errors.As(err, &late):
		return exitStation, "look at it with: platelayer logs; a launch that was undone stays with: platelayer up --keep"
	case errors.As(err, &dynamic):
		return exitUnsupported, "build it with CGO_ENABLED=0"
	case errors.As(err, &wanting) && !lifecycle.Unsupported(err):
		return exitFailed, "nothing was started or changed; put there what is missing, or edit these lines"
	case errors.As(err, &attach):
		return exitUnsupported, "ip address and ip link show what the machine does with " + attach.Name + "; attach takes what it does not use itself"
	case lifecycle.Unsupported(err):
		if strings.Contains(err.Error(), "root privilege") {
			return exitUnsupported, "run it with sudo"
		}
		if strings.Contains(err.Error(), "transparent proxying") {
			return exitUnsupported, "modprobe -a nft_tproxy nft_socket nft_reject_inet; without them, a topology with egress: none and no published ports runs"
		}
		if strings.Contains(err.Error(), "packet sockets") {
			return exitUnsupported, "modprobe af_packet; without it, a topology with egress: none and no published ports runs"
		}
		return exitUnsupported, "platelayer doctor tells what this machine can do"
	case errors.As(err, &foreign):
		return exitUnsupported, "use an image for this machine, or have the kernel run such programs through an interpreter (binfmt_misc; Debian: qemu-user-static)"
	case errors.As(err, &unfit):
		return exitInvalid, unfit.Hint
	case errors.As(err, &noImage):
		return exitFailed, "platelayer image ls lists what is here; platelayer image pull and image load bring more"
	case errors.As(err, &denied):
		return exitFailed, registryHint(denied)
	case errors.As(err, &unreached) && unreached.NotTLS():
		return exitFailed, "if it is meant to be spoken to without TLS: --plain-http, or plain_http in " + image.RegistriesFile
	case errors.As(err, &unreached) && unreached.Untrusted():
		return exitFailed, "if it is the right one, put its authority's certificate into /etc/docker/certs.d/" + unreached.Host + "/ca.crt"
	case errors.As(err, &unreached) && unreached.OtherName():
		return exitFailed, "call it by a name that its certificate has, or have those who run it make one for this name"
	case errors.As(err, &unreached) && unreached.Invalid():
		return exitFailed, "tell those who run it, if this machine's clock is right"
	case errors.As(err, &unreached):
		return exitFailed, "without a way there images come by image load, image import and bundle load, or from a mirror: " + image.RegistriesFile
	case errors.As(err, &platform):
		return exitFailed, "platelayer image pull --platform takes an image of another platform"
	case errors.As(err, &change):
		return exitUsage, "platelayer image import --help says which changes there are"
	case errors.As(err, &heldImage):
		return exitFailed, "take the topology down first; -f takes only the name away"
	case errors.As(err, &damage) && damage.Repaired:
		return exitIntegrity, "pull or load anew what was taken away; of what a topology runs on, take that down first, and repair it then"
	case errors.As(err, &damage):
		return exitIntegrity, "platelayer image verify --repair unpacks damaged layers again, and takes damaged blobs away to be pulled or loaded anew"
	case errors.As(err, &corrupt), errors.As(err, &lostBlob):
		return exitIntegrity, "platelayer image verify --repair takes damaged blobs away; pull or load the image again then"
	case errors.As(err, &lostNames):
		return exitIntegrity, "platelayer image verify --repair makes it anew of the images that are there, without their names"
	case errors.As(err, &unfitStore):
		return exitUnsupported, "keep images elsewhere, on ext4, xfs, btrfs or a tmpfs: platelayer --root DIR"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return exitFailed, "make room there; platelayer image prune takes away what no image has and killed commands left"
	case errors.As(err, &machine):
		return exitFailed, "its keeper has ended, and one from here would lead elsewhere: run the command there, or take it down"
	case errors.As(err, &lost):
		return exitFailed, "its last words are in keeper.log among the topology's logs; the next command starts another keeper"
	case errors.As(err, &other) && other.Theirs > other.Ours:
		return exitFailed, "a newer platelayer brought it up: use that one"
	case errors.As(err, &other):
		return exitFailed, "platelayer up replaces the keeper and leaves its stations alone"
	case errors.As(err, &down):
		return exitFailed, "bring it up with: platelayer up -n " + down.Name + " FILE"
	case errors.As(err, &elsewhere), errors.As(err, &taken):
		return exitUnsupported, "bring a copy up under another name with -n"
	case errors.As(err, &newer):
		return exitFailed, "use that platelayer, or remove the topology with what its stations wrote: platelayer down " + newer.Name
	case errors.As(err, &unreadable) && filepath.Base(unreadable.Path) == "state.json":
		return exitFailed, fmt.Sprintf("platelayer down %s removes it with what its stations wrote; to keep that, remove %s, and up starts them anew",
			unreadable.Name, unreadable.Path)
	case errors.As(err, &unreadable):
		return exitFailed, "platelayer down " + unreadable.Name + " removes it with what its stations wrote"
	case errors.As(err, &busy):
		return exitFailed, "wait for it to finish, or interrupt it, and try again"
	case errors.As(err, &authority):
		return exitFailed, "give a station tls: true and bring the topology up: it is made then"
	case errors.As(err, &damaged):
		return exitFailed, fmt.Sprintf("restore it, or have a new one made by the next up: platelayer down %s --volumes removes it, and named volumes", damaged.Name)
	case errors.As(err, &unfitKey) && unfitKey.Key == "user":
		return exitFailed, "write user: NAME as the station's own /etc/passwd and /etc/group have it, or UID:GID; without it, an image's USER counts"
	case errors.As(err, &unknown):
		return exitFailed, "platelayer ls lists the topologies"
	}
	return exitFailed, ""
}

// registryHint is what to do about a registry's refusal.
func registryHint(e *image.RegistryError) string {
	switch {
	case e.Redirected:
		return "it is where the registry keeps its content: try again later, or tell those who run it"
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		if e.Credentials != "" && e.Granted {
			return fmt.Sprintf("it took the credentials of %s, whose account may not do this, or there is no such image", e.Credentials)
		}
		if e.Credentials != "" {
			return fmt.Sprintf("it refuses the credentials of %s: sign in again with docker login %s, or podman login", e.Credentials, e.Account)
		}
		return fmt.Sprintf("the image may be private, or not be there: sign in with docker login %s, or podman login, as the user who runs sudo", e.Account)
	case e.Status == http.StatusNotFound && e.Credentials == "":
		return fmt.Sprintf("there is no such image, or it is private: check its name and its tag, or sign in with docker login %s", e.Account)
	case e.Status == http.StatusNotFound:
		return "there is no such image: check its name and its tag"
	case e.Status == http.StatusMethodNotAllowed:
		return "it takes no images: it may be a cache or a mirror, or for reading only"
	case e.Status == http.StatusBadRequest && strings.HasPrefix(e.Registry, "http://"):
		return "it may want TLS: leave out --plain-http, or its plain_http in " + image.RegistriesFile
	case e.Status == http.StatusTooManyRequests && e.Credentials == "":
		return fmt.Sprintf("some registries allow more to those who sign in: docker login %s", e.Account)
	}
	return ""
}
