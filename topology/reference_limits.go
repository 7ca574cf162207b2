package topology

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// limitSections are the levels below a station's keys for limits, files,
// rights and reuse, and below those of the top level.
func limitSections() []section {
	return []section{
		{extendsLevel, "`extends`, long form", "The short form is the name.", ""},
		{includeLevel, "An entry of `include`, long form", "The short form is the path.", ""},
		{envFileLevel, "An entry of `env_file`, long form", "The short form is the path.", ""},
		{namedVolumeLevel, "A volume of the top level", "A folder that outlives the stations that use it.", `volumes: {data: }
clusters: {lan: {stations: {db: {volumes: [data:/var/lib/db]}}}}
`},
		{configLevel, "A config of the top level", "A file for stations.", ""},
		{secretLevel, "A secret of the top level", "A file for stations that others should not see.", ""},
		{fileLevel, "An entry of `configs` or `secrets`, long form", "The short form is the name.", ""},
		{bindLevel, "`bind` of a volume", "More about a file or folder of the machine.", ""},
		{volumeOptionsLevel, "`volume` of a volume", "More about a named or anonymous volume.", ""},
		{tmpfsLevel, "`tmpfs` of a volume", "More about a memory file system.", ""},
		{deviceLevel, "An entry of `devices`, long form", "The short form is `HOST[:STATION[:rwm]]`.", ""},
		{ulimitLevel, "A value of `ulimits`, long form", "The short form is one number for both.", ""},
		{blkioLevel, "`blkio_config`", "Limits of block devices' use.", ""},
		{blkioWeightLevel, "An entry of `weight_device`", "The weight for one device.", ""},
		{blkioRateLevel, "An entry of a `device_` list", "The bound for one device.", ""},
		{resourcesLevel, "`resources` of `deploy`", "Compose's other place for limits. What is in the station too must be the same.", ""},
		{limitsLevel, "`limits` of `resources`", "The most that the station may use.", ""},
		{reservationsLevel, "`reservations` of `resources`", "What it has when others want more.", ""},
	}
}

func reuseText() string {
	return `
## Reuse

- ` + "`defaults`" + ` is merged under every station of its file, ` + "`templates`" + ` are stations that are not there, and
  ` + "`extends: NAME`" + ` merges a template or another station under this one; ` + "`{service: NAME, file: FILE}`" + ` takes it from a further
  file, a topology's or a compose file. Defaults are below templates, and those below the station's own keys.
- ` + "`include`" + ` adds the clusters, volumes, configs, secrets and templates of further files; their relative paths start at their own
  folders, and their ` + "`defaults`" + ` hold for their own stations only. Their ` + "`name`" + ` is not used. A cluster may have stations from
  several files. What stands in two files is a problem.
- Mappings are merged key by key, and a value without anything keeps what is below. Lists are put one after the other, where
  ` + "`volumes`, `devices`, `tmpfs`, `configs`, `secrets`, `interfaces` and `routes`" + ` for the same place replace each other and equal
  elements stand once. ` + "`environment`, `labels`, `sysctls` and `depends_on`" + ` are merged by name, as mapping or list. ` + "`command`" + `,
  ` + "`entrypoint`, `startup`, `addresses`" + ` and the ` + "`test`" + ` of a healthcheck are replaced whole.
- ` + "`KEY: !reset null`" + ` takes a value away, ` + "`KEY: !override VALUE`" + ` replaces it whole.
`
}

// notCompose are a station's keys that compose's services do not have.
func notCompose() []string {
	return []string{"rootfs", "writable", "address", "addresses", "interfaces", "routes", "loopback", "interface_name", "egress", "aliases", "startup", "systemd", "replicas", "group", "seal", "integrity"}
}

// composeTable prints what becomes of each key of a compose service.
func composeTable(b *strings.Builder, keys []key) {
	all := maps.Clone(foreignKeys(stationLevel))
	for _, k := range keys {
		if !slices.Contains(notCompose(), k.name) {
			all[k.name] = ""
		}
	}
	b.WriteString("\n## Compose keys: taken, refused and why\n\n`platelayer import` makes a topology of a compose file, see [compose.md](compose.md).\n\n| Key of a compose service | | |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		what := "taken"
		if all[name] != "" {
			what = "refused"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, what, cell(all[name]))
	}
}
