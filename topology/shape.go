package topology

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// form is the kind of value a key takes.
type form int

const (
	formText    form = iota // a word or a number, taken as written
	formInteger             // a whole number
	formBoolean             // true or false
	formAny                 // any single value or nothing: environment
	formList                // a list of elem
	formTable               // names of the user's own, each with an elem
	formObject              // the keys of a level
	formEither              // one of options, which differ in form
)

// shape is what a key takes: the one description that checking, the JSON
// Schema and the reference share.
type shape struct {
	form    form
	is      string   // what it is, for people: "an address"
	words   []string // the only texts there are, if any
	pattern string   // regular expression for the schema; the decoder checks more
	elem    *shape
	level   level
	options []shape
	null    bool // may be left empty
}

// key is one key of a level.
type key struct {
	name     string
	shape    shape
	doc      string // one or more sentences, markdown
	example  string // YAML of the key and its value
	def      string // what leaving it out means, in words
	required bool
}

// level is a mapping of the file with keys of its own.
type level string

const (
	topologyLevel      level = "topology"
	backboneLevel      level = "backbone"
	clusterLevel       level = "cluster"
	stationLevel       level = "station"
	interfaceLevel     level = "interface"
	routeLevel         level = "route"
	linkLevel          level = "link"
	portLevel          level = "port"
	endpointLevel      level = "endpoint"
	gatewayLevel       level = "gateway"
	tlsLevel           level = "tls"
	upstreamLevel      level = "upstream"
	volumeLevel        level = "volume"
	dependencyLevel    level = "dependency"
	healthLevel        level = "healthcheck"
	loggingLevel       level = "logging"
	logOptionsLevel    level = "logging_options"
	deployLevel        level = "deploy"
	integrityLevel     level = "integrity"
	extendsLevel       level = "extends"
	envFileLevel       level = "env_file"
	includeLevel       level = "include"
	namedVolumeLevel   level = "named_volume"
	configLevel        level = "config"
	secretLevel        level = "secret"
	fileLevel          level = "file"
	deviceLevel        level = "device"
	ulimitLevel        level = "ulimit"
	blkioLevel         level = "blkio_config"
	blkioWeightLevel   level = "weight_device"
	blkioRateLevel     level = "device_rate"
	resourcesLevel     level = "resources"
	limitsLevel        level = "limits"
	reservationsLevel  level = "reservations"
	bindLevel          level = "bind"
	volumeOptionsLevel level = "volume_options"
	tmpfsLevel         level = "tmpfs"
)

// takesExtensions tells whether x- keys are ignored on the level.
func (v level) takesExtensions() bool {
	return slices.Contains([]level{topologyLevel, backboneLevel, clusterLevel, stationLevel}, v)
}

// article is the level's name with the article that a sentence needs.
func (v level) article() string {
	switch v {
	case topologyLevel, backboneLevel:
		return "the " + string(v)
	case interfaceLevel, includeLevel, envFileLevel, endpointLevel, upstreamLevel:
		return "an " + string(v)
	case integrityLevel, loggingLevel, deployLevel, blkioLevel, resourcesLevel, limitsLevel, reservationsLevel, extendsLevel, tmpfsLevel, tlsLevel:
		return string(v)
	case logOptionsLevel:
		return "the options of logging"
	}
	return "a " + string(v)
}

// check holds a node against a shape and reports unknown keys, wrong types
// and missing keys. What it finds wrong it marks bad.
func (l *loader) check(n *node, s *shape, name string) {
	if n.pending != nil {
		l.spoil(n, n.pending.message, n.pending.hint)
	}
	if n.bad || n.kind == null && s.null {
		return
	}
	switch s.form {
	case formEither:
		for i := range s.options {
			if s.options[i].fits(n) {
				l.check(n, &s.options[i], name)
				return
			}
		}
		l.wrongType(n, s, name)
		return
	case formAny:
		if n.kind != scalar && n.kind != null {
			l.wrongType(n, s, name)
		}
		return
	}
	if !s.fits(n) {
		l.wrongType(n, s, name)
		return
	}
	switch s.form {
	case formText:
		if s.words != nil && !slices.Contains(s.words, n.text) {
			l.spoil(n, fmt.Sprintf("%s cannot be %s", name, quoted(n.text)), "it is "+orList(s.words))
		}
	case formList:
		for _, item := range n.items {
			l.check(item, s.elem, name)
		}
	case formTable:
		for _, p := range n.pairs {
			l.check(p.val, s.elem, p.key)
		}
	case formObject:
		l.checkKeys(n, s.level)
	}
}

// fits compares only the outermost form.
func (s *shape) fits(n *node) bool {
	switch s.form {
	case formText:
		return n.kind == scalar && n.tag != "!!bool"
	case formInteger:
		_, err := strconv.ParseInt(n.text, 10, 64)
		return n.kind == scalar && err == nil
	case formBoolean:
		return n.kind == scalar && (n.tag == "!!bool" || n.tag == "" && (n.text == "true" || n.text == "false"))
	case formAny:
		return n.kind == scalar || n.kind == null
	case formList:
		return n.kind == sequence
	}
	return n.kind == mapping
}

func (l *loader) wrongType(n *node, s *shape, name string) {
	found := n.kind.String()
	if n.kind == null {
		found = "empty"
	}
	if n.kind == scalar {
		found = quoted(n.text)
	}
	hint := "it takes " + s.String()
	switch {
	case n.kind == null:
		hint += "; to leave it out, remove it"
	case n.tag == "!!bool" && s.takes(formText):
		hint += "; put it into quotes if you mean the word"
	}
	l.spoil(n, fmt.Sprintf("%s cannot be %s", name, found), hint)
}

// takes tells whether the shape or one of its options has the form.
func (s *shape) takes(f form) bool {
	return s.form == f || slices.ContainsFunc(s.options, func(o shape) bool { return o.form == f })
}

func (l *loader) checkKeys(n *node, at level) {
	keys := l.keys[at]
	for _, p := range n.pairs {
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == p.key })
		switch {
		case i >= 0:
			l.check(p.val, &keys[i].shape, p.key)
			continue
		case at.takesExtensions() && strings.HasPrefix(p.key, "x-"):
			continue
		}
		if hint, foreign := foreignKeys(at)[p.key]; foreign {
			l.report(p.at, fmt.Sprintf("%s is not available in this version", p.key), hint)
			n.meant = append(n.meant, p.key, replacedBy(p.key))
			continue
		}
		names := make([]string, len(keys))
		for i := range keys {
			names[i] = keys[i].name
		}
		message := fmt.Sprintf("unknown key %s in %s", quoted(p.key), at.article())
		guess := nearest(p.key, names)
		foreign := nearest(p.key, slices.Sorted(maps.Keys(foreignKeys(at))))
		switch {
		case guess != "":
			n.meant = append(n.meant, guess)
			l.report(p.at, message, fmt.Sprintf("did you mean %s?", guess))
		case foreign != "":
			l.report(p.at, message, fmt.Sprintf("%s is not available in this version: %s", foreign, foreignKeys(at)[foreign]))
		default:
			l.report(p.at, message, "its keys are "+strings.Join(names, ", "))
		}
	}
	for _, k := range keys {
		if k.required && n.get(k.name) == nil && !n.spoiled(k.name) {
			l.spoil(n, fmt.Sprintf("%s is missing", k.name), "add "+strings.Split(k.example, "\n")[0])
		}
	}
}

// String says for people what the shape takes.
func (s *shape) String() string {
	switch {
	case s.is != "":
		return s.is
	case s.words != nil:
		return orList(s.words)
	case s.form == formEither:
		var all []string
		for i := range s.options {
			all = append(all, s.options[i].String())
		}
		return strings.Join(all, ", or ")
	case s.form == formList:
		return "a list of " + strings.TrimPrefix(strings.TrimPrefix(s.elem.String(), "a "), "an ") + "s"
	}
	return [...]string{"a text", "a whole number", "true or false", "a value", "a list", "a mapping of names",
		"a mapping"}[s.form]
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
