package topology

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"gopkg.in/yaml.v3"
)

func resolvedSchema(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

// asJSON is a YAML file as an editor's schema check sees it.
func asJSON(t *testing.T, file string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(file), &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func accepted(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{"starter": Starter()}
	for _, path := range []string{"testdata/full.yaml", "testdata/full.resolved.yaml"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = string(data)
	}
	for _, s := range append(sections(), limitSections()...) {
		if s.example == "" {
			continue
		}
		files["section "+s.title] = s.example
	}
	for at, keys := range keyTable() {
		for _, k := range keys {
			files[string(at)+" "+k.name] = exampleFile(at, k)
		}
	}
	return files
}

// exampleFile makes a whole file of a key's example.
func exampleFile(at level, k key) string {
	station := func(keys string) string {
		return "clusters: {lan: {subnets: [10.20.0.0/24, 'fd20::/64'], stations: {a: {" + keys + "}, db: , www1: }}, " +
			"backend: {subnets: [10.30.0.0/24], stations: {cache: }}}"
	}
	switch at {
	case topologyLevel:
		if k.name == "clusters" {
			return k.example
		}
		return k.example + "\nclusters: {lan: {stations: {a: }}}"
	case backboneLevel:
		return "backbone: {" + k.example + "}\nclusters: {lan: {stations: {a: }}}"
	case clusterLevel:
		keys := []string{k.example}
		if k.name != "subnet" && k.name != "subnets" {
			keys = append(keys, "subnets: [10.20.0.0/24, 'fd20::/64']")
		}
		if k.name != "stations" {
			keys = append(keys, "stations: {lb: }")
		}
		if k.name == "attach" {
			keys = append(keys, "switch: host")
		}
		return "clusters: {lan: {" + strings.Join(keys, ", ") + "}}"
	case stationLevel:
		if k.name == "rootfs" {
			k.example = "command: x, " + k.example
		}
		return "templates: {base: {}}\nconfigs: {site: {content: x}}\nsecrets: {key: {content: x}}\n" + station(k.example)
	case interfaceLevel:
		if k.name == "cluster" {
			return station("interfaces: [{" + k.example + "}]")
		}
		return "clusters: {lan: {subnets: [10.20.0.0/24, 'fd20::/64']}, web: {stations: {a: {interfaces: [{cluster: lan, " + k.example + "}]}}}}"
	case routeLevel:
		other := map[string]string{"to": "via: 10.20.0.254", "via": "to: default", "dev": "to: 10.9.0.0/16", "type": "to: 10.9.0.0/16",
			"metric": "to: default, via: 10.20.0.254"}[k.name]
		return station("routes: [{" + k.example + ", " + other + "}]")
	case volumeLevel:
		keys := []string{k.example}
		kind := "type: bind"
		if k.name == "volume" || k.name == "tmpfs" {
			kind = "type: " + k.name
		}
		for name, other := range map[string]string{"type": kind, "source": "source: ./x", "target": "target: /x"} {
			if name != k.name && (name != "source" || kind == "type: bind") {
				keys = append(keys, other)
			}
		}
		return station("volumes: [{" + strings.Join(keys, ", ") + "}]")
	case dependencyLevel:
		return station("depends_on: {db: {" + k.example + "}}")
	case healthLevel:
		if k.name == "test" {
			return station("healthcheck: {" + k.example + "}")
		}
		return station("healthcheck: {test: [CMD, x], " + k.example + "}")
	case loggingLevel:
		return station("logging: {" + k.example + "}")
	case logOptionsLevel:
		return station("logging: {options: {" + k.example + "}}")
	case deployLevel:
		return station("deploy: {" + k.example + "}")
	case integrityLevel:
		if k.name == "paths" {
			return station("integrity: {" + k.example + "}")
		}
		return station("integrity: {paths: [/etc], " + k.example + "}")
	}
	return limitExample(at, k, station)
}

// limitExample does the same for the levels of limitLevels.
func limitExample(at level, k key, station func(string) string) string {
	top := func(keys string) string { return keys + "\nclusters: {lan: {stations: {a: }}}" }
	with := func(others ...string) string {
		keys := k.example
		for _, o := range others {
			if name, _, _ := strings.Cut(o, ":"); name != k.name {
				keys += ", " + o
			}
		}
		return keys
	}
	templates := "templates: {base: {}}\n"
	switch at {
	case linkLevel:
		return station("") + "\nlinks: [{" + with("endpoints: [a, db]") + "}]"
	case portLevel:
		return station("ports: [{" + with("target: 80") + "}]")
	case endpointLevel:
		return station("") + "\nlinks: [{subnets: [10.99.0.0/31, 'fd99::/127'], endpoints: [db, {" + with("station: lan/a") + "}]}]"
	case upstreamLevel:
		if k.name == "domain" {
			return "backbone: {upstream: [{" + k.example + ", servers: host}]}\nclusters: {lan: {stations: {a: }}}\n"
		}
		return "backbone: {upstream: [{domain: corp.example, " + k.example + "}]}\nclusters: {lan: {stations: {a: }}}\n"
	case gatewayLevel:
		others := []string{"station: lb"}
		if k.name == "transit" {
			others = append(others, "inline: true")
		}
		return "clusters: {lan: {subnets: [10.20.0.0/24, 'fd20::/64'], gateway: {" + with(others...) + "}, stations: {lb: }}}"
	case tlsLevel:
		return station("tls: {" + k.example + "}")
	case extendsLevel:
		return templates + station("extends: {"+with("service: base")+"}")
	case includeLevel:
		return top("include: [{" + with("path: []") + "}]")
	case envFileLevel:
		return station("env_file: [{" + with("path: ./web.env") + "}]")
	case namedVolumeLevel:
		return top("volumes: {data: {" + k.example + "}}")
	case configLevel, secretLevel:
		return top(string(at) + "s: {site: {" + k.example + "}}")
	case fileLevel:
		return "configs: {site: {content: x}}\n" + station("configs: [{"+with("source: site")+"}]")
	case bindLevel:
		return station("volumes: [{type: bind, source: ., target: /x, bind: {" + k.example + "}}]")
	case volumeOptionsLevel:
		return "volumes: {data: }\n" + station("volumes: [{type: volume, source: data, target: /x, volume: {"+k.example+"}}]")
	case tmpfsLevel:
		return station("volumes: [{type: tmpfs, target: /x, tmpfs: {" + k.example + "}}]")
	case deviceLevel:
		return station("devices: [{" + with("source: /dev/fuse") + "}]")
	case ulimitLevel:
		return station("ulimits: {nofile: {" + with("soft: 10", "hard: 4096") + "}}")
	case blkioLevel:
		return station("blkio_config: {" + k.example + "}")
	case blkioWeightLevel:
		return station("blkio_config: {weight_device: [{" + with("path: /dev/sda", "weight: 10") + "}]}")
	case blkioRateLevel:
		return station("blkio_config: {device_read_iops: [{" + with("path: /dev/sda", "rate: 10") + "}]}")
	case resourcesLevel:
		return station("deploy: {resources: {" + k.example + "}}")
	case limitsLevel, reservationsLevel:
		return station("deploy: {resources: {" + string(at) + ": {" + k.example + "}}}")
	}
	return ""
}

// TestKeysSchemaAndExamples: what the table says, Load takes and the schema
// allows.
func TestKeysSchemaAndExamples(t *testing.T) {
	schema := resolvedSchema(t)
	for name, file := range accepted(t) {
		t.Run(name, func(t *testing.T) {
			sameAfterYAML(t, mustLoad(t, file))
			if err := schema.Validate(asJSON(t, file)); err != nil {
				t.Errorf("%s\n%v", file, err)
			}
			if dir := os.Getenv("PLATELAYER_EXAMPLES"); dir != "" { // for ci/language-server
				name := strings.NewReplacer("/", "-", " ", "-", "`", "").Replace(name) + ".yaml"
				if err := os.WriteFile(filepath.Join(dir, name), []byte(file), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestSchemaRefuses: the schema is not one that allows everything.
func TestSchemaRefuses(t *testing.T) {
	schema := resolvedSchema(t)
	for _, file := range []string{
		"cluster: {}", "name: a", "clusters: [a]",
		"clusters: {lan: {stations: {a: {build: x}}}}",
		"clusters: {lan: {stations: {a: {writable: tape}}}}",
		"clusters: {lan: {mtu: big}}",
		"clusters: {lan: {stations: {a: {volumes: [{type: bind}]}}}}",
		"clusters: {lan: {stations: {a: {command: true}}}}",
		"clusters: {lan: {stations: {a: {depends_on: {b: {condition: healthy}}}, b: }}}",
		"clusters: {lan: {stations: {a: {healthcheck: {test: [CMD, x], retries: few}}}}}",
		"clusters: {lan: {stations: {a: {healthcheck: {test: [CMD, x], on_unhealthy: kill}}}}}",
		"clusters: {lan: {stations: {a: {restart: [always]}}}}",
		"clusters: {lan: {stations: {a: {replicas: many}}}}",
		"clusters: {lan: {stations: {a: {profiles: debug}}}}",
		"clusters: {lan: {stations: {a: {logging: {options: {tag: x}}}}}}",
	} {
		if err := schema.Validate(asJSON(t, file)); err == nil {
			t.Errorf("the schema allows %s", file)
		}
		if _, err := Load("f.yaml", []byte(file), testOptions()); err == nil {
			t.Errorf("Load allows %s", file)
		}
	}
}

// TestEveryKeyIsDocumented: table, schema and docs have the same keys, and a
// known foreign key is not one of ours.
func TestEveryKeyIsDocumented(t *testing.T) {
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	reference := Reference()
	for at, keys := range keyTable() {
		properties := schema
		if at != topologyLevel {
			properties = schema["$defs"].(map[string]any)[string(at)].(map[string]any)
		}
		have := properties["properties"].(map[string]any)
		if len(have) != len(keys) {
			t.Errorf("%s: %d keys in the schema, %d in the table", at, len(have), len(keys))
		}
		foreign := foreignKeys(at)
		for _, k := range keys {
			if have[k.name] == nil {
				t.Errorf("%s of %s is not in the schema", k.name, at)
			}
			if !strings.Contains(reference, "- **`"+k.name+"`**: "+k.doc) {
				t.Errorf("%s of %s is not in the reference", k.name, at)
			}
			if foreign[k.name] != "" {
				t.Errorf("%s of %s is both taken and refused", k.name, at)
			}
			if k.doc == "" || k.example == "" || k.def == "" && !k.required {
				t.Errorf("%s of %s lacks doc, example or default", k.name, at)
			}
		}
	}
}

// TestEveryKeyMatters: a station's key that is taken makes another station.
func TestEveryKeyMatters(t *testing.T) {
	for _, k := range keyTable()[stationLevel] {
		print := func(example string) string {
			file := exampleFile(stationLevel, key{name: k.name, example: example})
			out, err := mustLoad(t, strings.Replace(file, "base: {}", "base: {tty: true}", 1)).YAML()
			if err != nil {
				t.Fatal(err)
			}
			return string(out)
		}
		if print(k.example) == print("") {
			t.Errorf("%s: the station is the same without it", k.example)
		}
	}
}
