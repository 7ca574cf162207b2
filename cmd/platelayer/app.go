package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"platelayer/lifecycle"
	"platelayer/topology"
)

const defaultFile = "platelayer.yaml"

// stationHelp ends the help of commands for stations of a running topology.
const stationHelp = `

A station is named NAME, CLUSTER/NAME or TOPOLOGY.CLUSTER.NAME. The name of one
with replicas, or of a group, means all of them. The topology is that of the file
in this folder, of -f or -n, or the only one that is up.`

// app is what every command shares: the streams and the flags that all have.
type app struct {
	stdin, stdout, stderr *os.File

	file    string // --file
	name    string // --name
	root    string // --root
	run     string // --run and --lib: the keeper's, when they are not root's
	lib     string
	verbose bool
	quiet   bool
	json    bool

	profiles []string       // --profile
	scale    map[string]int // of the scale command

	// What load is told about while it reads; may be nil.
	noteFile     func(path string)     // a file that the topology file names
	noteVariable func(variable string) // one of the environment's
}

func (a *app) command() *cobra.Command {
	c := &cobra.Command{
		Use:           "platelayer",
		Short:         "Build a network of containers from one YAML file",
		Args:          subcommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	c.SetOut(a.stdout)
	c.SetErr(a.stderr)
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	flags := c.PersistentFlags()
	flags.StringVarP(&a.name, "name", "n", "", "name of the topology, or of this copy of it")
	flags.StringVar(&a.root, "root", os.Getenv("PLATELAYER_ROOT"), "keep all state below this folder (PLATELAYER_ROOT)")
	flags.StringVar(&a.run, "run", "", "")
	flags.StringVar(&a.lib, "lib", "", "")
	flags.MarkHidden("run")
	flags.MarkHidden("lib")
	flags.BoolVarP(&a.quiet, "quiet", "q", false, "print nothing but results and errors")
	flags.StringSliceVar(&a.profiles, "profile", splitList(os.Getenv("PLATELAYER_PROFILES")), "enable stations of this profile too (PLATELAYER_PROFILES)")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say what is done and how long it takes")
	c.AddGroup(
		&cobra.Group{ID: "file", Title: "The file:"},
		&cobra.Group{ID: "life", Title: "Life of a topology:"},
		&cobra.Group{ID: "network", Title: "The network:"},
		&cobra.Group{ID: "integrity", Title: "Integrity:"},
		&cobra.Group{ID: "images", Title: "Images:"},
		&cobra.Group{ID: "machine", Title: "The machine:"},
	)
	c.SetHelpCommandGroupID("machine")
	c.SetCompletionCommandGroupID("machine")
	add := func(group string, commands ...*cobra.Command) {
		for _, s := range commands {
			s.GroupID = group
			for _, each := range append(s.Commands(), s) {
				short := "f"
				if each.Flags().Lookup("follow") != nil { // which has -f
					short = ""
				}
				each.Flags().StringVarP(&a.file, "file", short, "", "the topology file (default: "+defaultFile+" in this folder)")
			}
			c.AddCommand(s)
		}
	}
	add("file", a.initCommand(), a.importCommand(), a.checkCommand(), a.configCommand(), a.planCommand(), a.schemaCommand(), a.graphCommand())
	add("life", a.upCommand(), a.downCommand(), a.psCommand(), a.lsCommand(), a.logsCommand(), a.execCommand(), a.runCommand(),
		a.startCommand(), a.stopCommand(), a.restartCommand(), a.killCommand(), a.pauseCommand(), a.unpauseCommand(),
		a.scaleCommand(), a.rmCommand(), a.eventsCommand(), a.inspectCommand(), a.statsCommand(), a.topCommand(), a.shellCommand(), a.cpCommand())
	add("network", a.netCommand(), a.portCommand(), a.hostsCommand(), a.caCommand())
	add("integrity", a.sealCommand(), a.verifyCommand(), a.lockCommand())
	add("machine", a.doctorCommand(), a.versionCommand())
	add("images", a.commitCommand(), a.bundleCommand())
	images := a.imageCommand() // whose rm has -f for --force
	images.GroupID = "images"
	c.AddCommand(images)
	c.AddCommand(a.keeperCommand(), a.backboneCommand(), a.undoCommand())
	return c
}

func (a *app) layout() lifecycle.Layout {
	root := a.root
	if abs, err := filepath.Abs(root); err == nil && root != "" {
		root = abs // the keeper works in another folder
	}
	l := lifecycle.NewLayout(root)
	if a.run != "" {
		l.Run = a.run
	}
	if a.lib != "" {
		l.Lib = a.lib
	}
	return l
}

// jsonFlag adds --json to a command that prints results.
func (a *app) jsonFlag(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&a.json, "json", false, "print the result as JSON")
	return c
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(tameJSON{a.stdout})
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// tameJSON is a writer of whole JSON values that escapes what could steer a
// terminal and the encoder leaves as it is: the text means the same.
type tameJSON struct{ w io.Writer }

func (t tameJSON) Write(text []byte) (int, error) {
	var out []byte
	for _, r := range string(text) {
		if r != '\n' && r < 0x10000 && !unicode.IsPrint(r) {
			out = fmt.Appendf(out, "\\u%04x", r)
			continue
		}
		out = utf8.AppendRune(out, r)
	}
	if _, err := t.w.Write(out); err != nil {
		return 0, err
	}
	return len(text), nil
}

// path finds the topology file that arg, --file or the current folder names; a
// folder stands for the platelayer.yaml in it.
func (a *app) path(args []string) string {
	path := a.file
	if len(args) > 0 {
		path = args[0]
	}
	if path == "" {
		return defaultFile
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, defaultFile)
	}
	return path
}

// readFile reads a file that the user named, which may be a pipe. Nobody writes
// one of this size by hand.
func readFile(path string) ([]byte, error) {
	const most = 16 << 20 // bytes
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(data) > most {
		err = fmt.Errorf("it is larger than %d MiB", most>>20)
	}
	return data, err
}

// load reads the topology file with the variables of the environment and of
// the .env file beside it, as compose does.
func (a *app) load(path string) (*topology.Topology, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, &fileError{path: path, err: err}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("cannot find the folder of %s: %w", path, err)
	}
	dotenv := map[string]string{}
	env := filepath.Join(filepath.Dir(path), ".env")
	if info, err := os.Stat(env); err == nil && info.IsDir() {
		// A Python environment, most likely.
	} else if text, err := lifecycle.ReadSource(env); err == nil {
		if dotenv, err = topology.ParseEnv(env, text); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read .env beside %s: %w", path, err)
	}
	return topology.Load(path, data, topology.Options{
		Name:  a.name,
		Dir:   filepath.Dir(abs),
		Scale: a.scale,

		ReadFile: func(path string) ([]byte, error) {
			data, err := lifecycle.ReadSource(path)
			if err == nil && a.noteFile != nil {
				a.noteFile(path)
			}
			return data, err
		},
		LookupEnv: func(key string) (string, bool) {
			if v, ok := os.LookupEnv(key); ok {
				if a.noteVariable != nil {
					a.noteVariable(key)
				}
				return v, true
			}
			v, ok := dotenv[key]
			return v, ok
		},
	})
}

// target finds the name of the topology that a command is about: --name, a
// name or file given, --file, the file in this folder, or the only one there.
func (a *app) target(args []string) (string, error) {
	given, named := a.file, false
	if len(args) > 0 {
		given = args[0]
		if !strings.ContainsAny(given, "/.") {
			_, err := os.Stat(given)
			named = err != nil
		}
	}
	switch {
	case named && a.name != "" && a.name != given:
		return "", &usageError{fmt.Errorf("two topologies are named: %s, and %s by -n", given, a.name)}
	case a.name != "":
		return a.name, nil
	case named:
		return given, nil
	}
	path := a.path(args)
	if _, err := os.Stat(path); err != nil && given == "" {
		return a.onlyOne()
	}
	name := ""
	t, loadErr := a.load(path)
	if loadErr == nil {
		name = t.Name
	}
	found, err := lifecycle.Resolve(a.layout(), path, name)
	if err != nil && loadErr != nil {
		return "", loadErr
	}
	return found, err
}

func (a *app) onlyOne() (string, error) {
	all, err := lifecycle.Ls(a.layout())
	if err != nil {
		return "", err
	}
	switch len(all) {
	case 0:
		return "", &usageError{fmt.Errorf("no topology is up here, and there is no %s in this folder", defaultFile)}
	case 1:
		return all[0].Name, nil
	}
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = t.Name
	}
	return "", &usageError{fmt.Errorf("several topologies are up: name one with -n (%s)", strings.Join(names, ", "))}
}

func splitList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

// lookupAll looks stations and groups up in a topology.
func lookupAll(t *topology.Topology, refs []string) ([]*topology.Station, error) {
	var all []*topology.Station
	for _, ref := range refs {
		found, err := t.LookupAll(ref)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// targetOf is target for a command about stations: a full container name tells
// its topology.
func (a *app) targetOf(ref string) (string, error) {
	if parts := strings.Split(ref, "."); a.name == "" && a.file == "" && len(parts) == 3 {
		return parts[0], nil
	}
	return a.target(nil)
}
