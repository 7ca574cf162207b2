package topology

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestHostileFiles: large files made to be slow are read in seconds, whatever
// the answer.
func TestHostileFiles(t *testing.T) {
	repeat := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String()
	}
	for name, file := range map[string]string{
		"too large":       strings.Repeat("#", maxBytes+1),
		"deep flow":       strings.Repeat("[", 100_000),
		"deep block":      repeat(900, func(i int) string { return strings.Repeat(" ", i) + "a:\n" }),
		"many clusters":   "clusters:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  c%d: {}\n", i) }),
		"many subnets":    "clusters:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  c%d: {subnet: 'fd00:0:%x::/64'}\n", i, i) }),
		"same subnet":     "clusters:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  c%d: {subnet: 10.0.0.0/8}\n", i) }),
		"full subnet":     "clusters:\n  lan:\n    subnet: 10.20.0.0/18\n    stations:\n" + repeat(30_000, func(i int) string { return fmt.Sprintf("      s%d:\n", i) }),
		"dependencies":    "clusters:\n  lan:\n    stations:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("      s%d: {depends_on: [s%d]}\n", i, i+1) }),
		"unknown":         "clusters:\n  lan:\n    stations:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("      s%d: {depends_on: [x%d]}\n", i, i) }),
		"replicas":        "clusters:\n  lan:\n    subnet: 10.0.0.0/8\n    stations:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("      s%d: {replicas: 1000}\n", i) }),
		"many replicas":   "clusters:\n  lan:\n    subnet: 10.0.0.0/8\n    stations:\n" + repeat(10, func(i int) string { return fmt.Sprintf("      s%d: {replicas: 1000}\n", i) }),
		"no replicas":     "clusters:\n  lan:\n    stations:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("      s%d: {replicas: 0}\n", i) }),
		"replicas meet":   "clusters:\n  lan:\n    subnet: 10.0.0.0/8\n    stations:\n" + repeat(20, func(i int) string { return fmt.Sprintf("      s%d: {replicas: 1000, depends_on: [s%d]}\n", i, i+1) }),
		"large replicas":  "clusters: {lan: {stations: {s: {replicas: 1000, environment: [A=" + strings.Repeat("x", 3<<20) + "]}}}}",
		"one group":       "clusters:\n  lan:\n    subnet: 10.0.0.0/8\n    stations:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("      s%d: {group: g, depends_on: [g]}\n", i) }),
		"unknown keys":    repeat(50_000, func(i int) string { return fmt.Sprintf("clusterz%d: 1\n", i) }),
		"unknown gateway": "clusters:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  c%d: {gateway: x, domain: 'a%d'}\n", i, i) }),
		"variables":       "name: \"" + strings.Repeat("${A:-", 200_000) + "\"",
		"more variables":  "name: \"" + strings.Repeat("${A:-}", 200_000) + "\"",
		"merges":          "x-a: &a {k: v}\nclusters:\n  <<: [" + strings.Repeat("*a,", 100_000) + "]\n",
		"template chain":  "templates:\n  t0: {tty: true}\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  t%d: {extends: t%d}\n", i+1, i) }) + "clusters: {lan: {stations: {a: {extends: t20000}}}}",
		"large template":  "templates: {t: {environment: [" + repeat(100_000, func(i int) string { return fmt.Sprintf("A%d=1,", i) }) + "]}}\nclusters:\n  lan:\n    stations:\n" + repeat(10_000, func(i int) string { return fmt.Sprintf("      s%d: {extends: t, environment: [B=1]}\n", i) }),
		"large defaults":  "defaults: {aliases: [" + repeat(50_000, func(i int) string { return fmt.Sprintf("a%d,", i) }) + "]}\nclusters:\n  lan:\n    stations:\n" + repeat(10_000, func(i int) string { return fmt.Sprintf("      s%d: {aliases: [b]}\n", i) }),
		"many extends":    "templates:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  t%d: {tty: true}\n", i) }) + "clusters:\n  lan:\n    subnet: 10.0.0.0/8\n    stations:\n" + repeat(10_000, func(i int) string { return fmt.Sprintf("      s%d: {extends: t%d}\n", i, i) }),
		"many includes":   "include: [" + strings.Repeat("sub/part.yaml, ", 50_000) + "]\nclusters: {lan: }",
		"volumes":         "volumes:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  v%d:\n", i) }) + "clusters: {lan: {stations: {a: {volumes: [" + repeat(20_000, func(i int) string { return fmt.Sprintf("'v%d:/x%d',", i, i) }) + "]}}}}",
		"many configs":    "configs:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  v%d: {content: a}\n", i) }) + "clusters: {lan: {stations: {a: {configs: [" + repeat(20_000, func(i int) string { return fmt.Sprintf("v%d,", i) }) + "]}}}}",
		"large aliases":   "x-a: &a " + strings.Repeat("a", 1<<20) + "\nclusters: {lan: {stations: {s: {environment: {" + repeat(100_000, func(i int) string { return fmt.Sprintf("A%d: *a,", i) }) + "}}}}}",
		"long key":        strings.Repeat("a", 500_000) + ": 1",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			top, err := Load("f.yaml", []byte(file), testOptions())
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
			if err == nil {
				sameAfterYAML(t, top)
			}
		})
	}
}

// TestHostileComposeFiles: the same for compose files.
func TestHostileComposeFiles(t *testing.T) {
	repeat := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String()
	}
	bomb := "x-0: &a0 {k: v}\n" + repeat(40, func(i int) string { return fmt.Sprintf("x-%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i) })
	for name, file := range map[string]string{
		"too large":  strings.Repeat("#", maxBytes+1),
		"deep flow":  strings.Repeat("[", 100_000),
		"deep block": "services:\n a:\n" + repeat(900, func(i int) string { return strings.Repeat(" ", i+2) + "a:\n" }),
		"alias bomb": bomb + "services: {a: {environment: *a40}}",
		"merge bomb": "x-0: &a0 {k: v}\n" + repeat(40, func(i int) string {
			return fmt.Sprintf("x-%d: &a%d {<<: [*a%d, *a%d], k%d: *a%d}\n", i+1, i+1, i, i, i, i)
		}) + "services: {a: *a40}",
		"cycles":        "services: &s\n  a: &a {environment: *a, networks: *s, extends: *a, <<: *a}\n  b: *s\n  <<: *s\n",
		"many services": "services:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  s%d: {depends_on: [s%d], links: [s%d]}\n", i, i+1, i+1) }),
		"one name": "services:\n" + repeat(1<<14, func(i int) string {
			return "  a" + strings.NewReplacer("0", ".", "1", "+").Replace(fmt.Sprintf("%014b", i)) + "z: {}\n"
		}),
		"extends chain": "services:\n  s0: {tty: true}\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  s%d: {extends: s%d}\n", i+1, i) }),
		"large extends": "services:\n  t: {environment: [" + repeat(50_000, func(i int) string { return fmt.Sprintf("A%d=1,", i) }) + "]}\n" + repeat(10_000, func(i int) string { return fmt.Sprintf("  s%d: {extends: t, environment: [B=1]}\n", i) }),
		"many networks": "services:\n  a: {networks: [" + repeat(20_000, func(i int) string { return fmt.Sprintf("n%d,", i) }) + "]}\n",
		"many includes": "include: [" + strings.Repeat("sub/more.yml, ", 50_000) + "]\nservices: {a: }",
		"wrong keys":    "services:\n  a:\n" + repeat(50_000, func(i int) string { return fmt.Sprintf("    k%d: 1\n", i) }),
		"wrong values":  "services:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  s%d: {mem_limit: x, cpus: y, volumes: [z]}\n", i) }),
		"same place":    "services:\n  a:\n    volumes: [" + repeat(50_000, func(i int) string { return fmt.Sprintf("./v%d:/v,", i) }) + "]\n",
		"network_mode":  "services:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  s%d: {network_mode: 'service:s%d'}\n", i, i+1) }),
		"large aliases": "x-a: &a " + strings.Repeat("a", 1<<20) + "\nservices: {s: {environment: {" + repeat(100_000, func(i int) string { return fmt.Sprintf("A%d: *a,", i) }) + "}}}",
		"variables":     "services: {a: {command: \"" + strings.Repeat("${A:-", 200_000) + "\"}}",
		"dollars":       "services: {a: {command: \"" + strings.Repeat("$ ", 500_000) + "\"}}",
		"long key":      "services: {a: {" + strings.Repeat("a", 500_000) + ": 1}}",
		"replicas":      "services:\n" + repeat(20_000, func(i int) string { return fmt.Sprintf("  s%d: {scale: 1000}\n", i) }),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			imported(t, file)
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %s", took)
			}
		})
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add([]byte("# x\nexport A='b\nc' # d\nE=\"${A} \\$\"\nG: h\nF=$A\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if env, err := ParseEnv(".env", data); err != nil && env != nil {
			t.Error("a result beside an error")
		}
	})
}
