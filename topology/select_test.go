package topology

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

const selectFile = `
name: shop
clusters:
  web:
    gateway: lb
    stations:
      lb: {depends_on: {cert: , trace: {required: false}}, interfaces: [{cluster: back}]}
      cert:
      www: {replicas: 2, depends_on: {back/db: {condition: service_healthy}, trace: {required: false}}}
      trace: {profiles: [debug]}
  back:
    stations:
      db: {healthcheck: {test: "true"}}
      console: {profiles: [debug, admin], depends_on: [shell]}
      shell: {profiles: [admin]}
  lab:
    gateway: router
    stations: {router: {profiles: [lab]}, probe: {profiles: [lab, probe]}}
  far: {stations: {alone: }}
`

func TestSelect(t *testing.T) {
	top := mustLoad(t, selectFile)
	before := mustLoad(t, selectFile)
	const plain = "web/lb web/cert web/www-1 web/www-2"
	for _, c := range []struct {
		selection      Selection
		want, clusters string
	}{
		{Selection{}, plain + " back/db far/alone", "web back far"},
		{Selection{Profiles: []string{"lab"}}, plain + " back/db lab/router lab/probe far/alone", "web back lab far"},
		{Selection{Profiles: []string{"*"}}, "web/lb web/cert web/www-1 web/www-2 web/trace back/db back/console back/shell lab/router lab/probe far/alone", "web back lab far"},
		{Selection{Only: []string{"far/alone"}}, "far/alone", "far"},
		{Selection{Only: []string{"db"}}, "back/db", "back"},
		{Selection{Only: []string{"www-2"}}, "web/lb web/cert web/www-2 back/db", "web back"},
		{Selection{Only: []string{"www"}}, plain + " back/db", "web back"},
		{Selection{Only: []string{"trace"}}, "web/lb web/cert web/trace", "web back"},
		{Selection{Only: []string{"probe"}, Profiles: []string{"lab"}}, "lab/router lab/probe", "lab"},
		{Selection{Only: []string{"probe"}}, "lab/router lab/probe", "lab"}, // its own profiles count
		{Selection{Only: []string{"shop.back.console"}}, "back/console back/shell", "back"},
	} {
		got, err := top.Select(c.selection)
		if err != nil {
			t.Errorf("%v: %v", c.selection, err)
			continue
		}
		var clusters []string
		for _, cl := range got.Clusters {
			clusters = append(clusters, cl.Name)
		}
		if ids(got) != c.want || strings.Join(clusters, " ") != c.clusters {
			t.Errorf("%v: %s in %s, not %s in %s", c.selection, ids(got), clusters, c.want, c.clusters)
		}
		if m := moved(places(got), places(top)); len(m) > 0 {
			t.Errorf("%v moved %v", c.selection, m)
		}
		sameAfterYAML(t, got)
	}
	if !reflect.DeepEqual(top, before) {
		t.Error("selecting changed the topology")
	}
	got, err := top.Select(Selection{Only: []string{"lb", "trace"}})
	if err != nil {
		t.Fatal(err)
	}
	if d := got.Clusters[0].Stations[0].DependsOn; len(d) != 2 {
		t.Errorf("an optional dependency that is there is dropped: %v", d)
	}
	got, err = top.Select(Selection{Only: []string{"lb"}})
	if err != nil {
		t.Fatal(err)
	}
	if d := got.Clusters[0].Stations[0].DependsOn; len(d) != 1 {
		t.Errorf("an optional dependency that is not there is kept: %v", d)
	}
}

func TestSelectTellsWhatIsMissing(t *testing.T) {
	top := mustLoad(t, selectFile)
	_, err := top.Select(Selection{Profiles: []string{"debug", "probe"}})
	var missing *SelectionError
	if !errors.As(err, &missing) || len(missing.Missing) != 2 {
		t.Fatalf("%v", err)
	}
	const want = "station back/console depends on back/shell, which is not enabled: activate profile admin\n" +
		"station lab/router is the gateway of cluster lab, which is not enabled: activate profile lab"
	if err.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", err, want)
	}
	_, err = top.Select(Selection{Only: []string{"nobody", "dbb"}})
	if err == nil || !strings.Contains(err.Error(), `"nobody"`) || !strings.Contains(err.Error(), "did you mean db?") {
		t.Errorf("%v", err)
	}
}

func TestLookupGroups(t *testing.T) {
	top := mustLoad(t, "name: shop\nclusters: {web: {stations: {www: {replicas: 2}, one: {replicas: 1}}}, db: {stations: {www: , pg: {replicas: 2}}}}")
	for ref, want := range map[string]string{"pg": "db/pg-1 db/pg-2", "web/www": "web/www-1 web/www-2", "shop.web.www": "web/www-1 web/www-2",
		"www-2": "web/www-2", "db/www": "db/www", "one": "web/one-1"} {
		found, err := top.LookupAll(ref)
		if err != nil || strings.Join(idsOf(found), " ") != want {
			t.Errorf("%s: %v, %v", ref, idsOf(found), err)
		}
	}
	if s, err := top.Lookup("one"); err != nil || s.ID() != "web/one-1" {
		t.Errorf("%v, %v", s, err)
	}
	for ref, want := range map[string]string{"pg": "db/pg-1 or db/pg-2", "www": "web/www or db/www", "pgg": "did you mean pg?"} {
		if _, err := top.Lookup(ref); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}
