package topology

import (
	"testing"
)

func TestOneOff(t *testing.T) {
	top, err := Load("t.yaml", []byte(`
clusters:
  lan:
    subnet: 10.1.0.0/29
    stations:
      web: {rootfs: host, command: x, replicas: 2, aliases: [www], restart: always, healthcheck: {test: "true"}, interfaces: [{cluster: far}]}
      web-run-1: {}
  far: {subnet: 10.2.0.0/24, stations: {db: {}}}
`), Options{Name: "t"})
	if err != nil {
		t.Fatal(err)
	}
	web, err := top.LookupAll("web")
	if err != nil {
		t.Fatal(err)
	}
	first, err := top.OneOff(web[0], "")
	if err != nil {
		t.Fatal(err)
	}
	if first.Name != "web-run-2" || first.Hostname != first.Name || first.Rootfs != "host" {
		t.Errorf("the copy is %+v", first)
	}
	if first.Aliases != nil || first.Ports != nil || first.Group != "" || first.Healthcheck != nil || first.Restart != (Restart{}) {
		t.Errorf("the copy would be taken for the station: %+v", first)
	}
	more, ok := top.With(first)
	if !ok {
		t.Fatalf("there is no place for %+v", first)
	}
	if _, again := more.With(first); again {
		t.Error("it is there twice")
	}
	if len(top.Stations()) != 4 || len(more.Stations()) != 5 || len(more.Without(first.ID()).Stations()) != 4 {
		t.Error("stations got lost")
	}
	owner := map[string]string{}
	for _, s := range more.Stations() {
		for _, a := range s.Addresses {
			if other, twice := owner[a.String()]; twice {
				t.Errorf("%s and %s have %s", s.ID(), other, a)
			}
			owner[a.String()] = s.ID()
		}
	}
	if got := first.Interfaces[0].Addresses[0]; !top.Clusters[1].Subnets[0].Contains(got) || got == web[0].Interfaces[0].Addresses[0] {
		t.Errorf("its second interface has %s", got)
	}
	last := more
	for i := 0; ; i++ {
		s, err := last.OneOff(web[0], "")
		if err != nil {
			break
		}
		if last, ok = last.With(s); !ok || i > 6 {
			t.Fatalf("a /29 has room for %d more", i)
		}
	}
	for _, name := range []string{"web", "www", "db", "web-1", "Nope", "-"} {
		if s, err := top.OneOff(web[0], name); err == nil {
			t.Errorf("a copy is called %s", s.Name)
		}
	}
	moved := *top
	moved.Clusters = append([]Cluster{}, top.Clusters[1:]...)
	if _, ok := moved.With(first); ok {
		t.Error("it is in a cluster that is gone")
	}
}
