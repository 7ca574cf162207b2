package topology

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// fileMode reads permissions, in octal as chmod has them.
func (l *loader) fileMode(n *node) uint32 {
	text := strings.TrimPrefix(n.text, "0o")
	v, err := strconv.ParseUint(text, 8, 32)
	if err != nil || v > 0o7777 || v == 0 || !strings.HasPrefix(n.text, "0") {
		l.spoil(n, fmt.Sprintf("%s is not a file's mode", quoted(n.text)), "write it in octal with a 0 before it: 0440")
	}
	return uint32(v)
}

// id reads the number of a user or a group.
func (l *loader) id(n *node) int {
	if n == nil {
		return 0
	}
	v, err := strconv.ParseUint(n.text, 10, 31)
	if err != nil {
		l.spoil(n, fmt.Sprintf("%s is not the number of a user or group", quoted(n.text)), "a number; names are not known before the station is there")
	}
	return int(v)
}

// tmpfs reads TARGET[:OPTION,...].
func (l *loader) tmpfs(s *stationDraft) {
	for _, n := range s.body.get("tmpfs").good() {
		target, options, _ := strings.Cut(n.text, ":")
		t, ok := Tmpfs{}, false
		if t.Target, ok = l.volumeTarget(&node{position: n.position, text: target}); !ok {
			continue
		}
		var kept []string
		seen := map[string]bool{}
		for option := range strings.SplitSeq(options, ",") {
			name, value, given := strings.Cut(option, "=")
			at := &node{position: n.position, text: value}
			switch {
			case options == "":
				continue
			case seen[name]:
				l.spoil(n, fmt.Sprintf("tmpfs option %s is set twice", quoted(name)), "keep one")
			case given && name == "size":
				t.Size = l.size(at)
			case given && name == "mode":
				at.text = "0" + strings.TrimPrefix(value, "0")
				t.Mode = l.fileMode(at)
			case given && name == "uid":
				t.UID = l.id(at)
			case given && name == "gid":
				t.GID = l.id(at)
			case given && name == "nr_inodes" && onlyDigits(value):
				kept = append(kept, option)
			case !given && slices.Contains(tmpfsFlags(), name):
				kept = append(kept, option)
			default:
				l.spoil(n, fmt.Sprintf("%s is not a tmpfs option", quoted(option)),
					"size=, mode=, uid=, gid=, nr_inodes=, "+orList(tmpfsFlags()))
			}
			seen[name] = true
			n.bad = n.bad || at.bad
		}
		t.Options = strings.Join(kept, ",")
		if !n.bad && l.claimTarget(s, n, t.Target) {
			s.out.Tmpfs = append(s.out.Tmpfs, t)
		}
	}
}

func onlyDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func tmpfsFlags() []string {
	return []string{"ro", "rw", "exec", "noexec", "suid", "nosuid", "nodev", "noatime", "nodiratime", "relatime", "strictatime", "sync", "async"}
}

func (l *loader) longTmpfs(s *stationDraft, n *node) {
	target, t, ok := n.get("target"), Tmpfs{}, false
	if target == nil {
		return
	}
	for _, key := range []string{"source", "bind", "volume"} {
		if o := n.get(key); o != nil {
			l.spoil(o, key+" is set and the type is tmpfs", "remove it: a tmpfs is empty memory")
			return
		}
	}
	if t.Target, ok = l.volumeTarget(target); !ok {
		return
	}
	if strings.Contains(t.Target, ":") {
		l.spoil(target, "a tmpfs cannot be at a path with a colon", "use another path")
		return
	}
	o := n.get("tmpfs")
	if size := o.get("size"); size != nil {
		t.Size = l.size(size)
	}
	if mode := o.get("mode"); mode != nil {
		t.Mode = l.fileMode(mode)
	}
	if n.get("read_only").isTrue() {
		t.Options = "ro"
	}
	if l.claimTarget(s, n, t.Target) {
		s.out.Tmpfs = append(s.out.Tmpfs, t)
	}
}

// files puts the configs and secrets that a station names into it.
func (l *loader) files(s *stationDraft) {
	for _, kind := range []string{"configs", "secrets"} {
		for _, n := range s.body.get(kind).good() {
			source := n
			if n.kind == mapping {
				if source = n.get("source"); source == nil {
					continue
				}
			}
			definition, known := l.named[kind][source.text]
			if !known {
				if !l.root.spoiled(kind) {
					hint := nearestHint(source.text, slices.Sorted(maps.Keys(l.named[kind])), fmt.Sprintf("add it at the top: %s: {%s: {file: ./FILE}}", kind, source.text))
					l.spoil(source, fmt.Sprintf("there is no %s %s", strings.TrimSuffix(kind, "s"), quoted(source.text)), hint)
				}
				continue
			}
			f, ok := l.content(definition, kind)
			if !ok {
				continue
			}
			f.Secret = kind == "secrets"
			folder := "/"
			if f.Secret {
				folder = "/run/secrets"
			}
			target := &node{position: source.position, text: source.text}
			if t := n.get("target"); n.kind == mapping && t != nil {
				target = t
			}
			at := &node{position: target.position, text: target.text}
			if !path.IsAbs(at.text) {
				at.text = strings.TrimSuffix(folder, "/") + "/" + at.text
			}
			if f.Target, ok = l.volumeTarget(at); !ok {
				continue
			}
			f.Mode = 0o444
			if n.kind == mapping {
				f.UID, f.GID = l.id(n.get("uid")), l.id(n.get("gid"))
				if m := n.get("mode"); m != nil {
					f.Mode = l.fileMode(m)
				}
			}
			if l.claimTarget(s, n, f.Target) {
				s.out.Files = append(s.out.Files, f)
			}
		}
	}
}

// indexNames makes what stations name quick to find in a file of very many.
func (l *loader) indexNames() {
	l.named = map[string]map[string]*node{}
	for _, kind := range []string{"volumes", "configs", "secrets"} {
		l.named[kind] = map[string]*node{}
		for _, p := range l.root.get(kind).all() {
			l.named[kind][p.key] = p.val
		}
	}
}

// checkContents reads configs and secrets that no station names, for their
// problems.
func (l *loader) checkContents() {
	for _, kind := range []string{"configs", "secrets"} {
		for _, p := range l.root.get(kind).all() {
			l.content(p.val, kind)
		}
	}
}

// content reads what a config or secret holds. Problems are told once, where
// it is defined.
func (l *loader) content(n *node, kind string) (f File, ok bool) {
	if n.bad {
		return f, false
	}
	var sources []*node
	for _, key := range []string{"file", "content", "environment"} {
		if v := n.get(key); v != nil {
			sources = append(sources, v)
		}
	}
	if len(sources) != 1 {
		if !n.spoiled("file", "content", "environment", "external") {
			l.spoil(n, fmt.Sprintf("a %s has %d of file, content and environment", strings.TrimSuffix(kind, "s"), len(sources)), "set one of them: file: ./FILE")
		}
		return f, false
	}
	switch v := sources[0]; v {
	case n.get("file"):
		if v.text == "" {
			l.spoil(v, "the file's name is empty", "write file: ./FILE")
			return f, false
		}
		f.Source, ok = l.machinePath(v, v.text)
	case n.get("content"):
		f.Content, ok = v.text, true
	default:
		if l.opt.LookupEnv != nil {
			f.Content, ok = l.opt.LookupEnv(v.text)
			f.Variable = v.text
		}
		if !ok {
			l.spoil(v, fmt.Sprintf("variable %s is not set", quoted(v.text)), "export it, or put it into .env")
		}
	}
	return f, ok
}
