package library_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/graph"
	"github.com/flogate/flogate/core/library"
)

func TestProcfileHasALineForEachRoleThatCanBeStarted(t *testing.T) {
	l := load(t, project(t, map[string]string{
		"package.json": `{"name": "n", "msgflo": {"components": {
			"api/Worker": "noflo-runtime-msgflo --name #ROLE --graph #COMPONENT --iips #IIPS --port $PORT", "api/Theirs": {}}}}`,
		"participants/A b.js": "", "participants/siri.yml": "",
	}))
	g, err := graph.ParseFBP("g.fbp", []byte(`
'5' -> X work(api/Worker) OUT -> IN rr(msgflo/roundrobin)
{"a": ["it's"]} -> IN work
rr OUT -> IN theirs(api/Theirs) OUT -> IN nobody(un/Known) OUT -> IN siri(n/siri)
`))
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := library.Nodes(g)
	if err != nil {
		t.Fatal(err)
	}
	text, without, err := l.Procfile(append(nodes, library.Node{Role: "web-1", Component: "n/A b"}))
	if err != nil {
		t.Fatal(err)
	}
	want := `work: noflo-runtime-msgflo --name work --graph api/Worker --iips '{"in":{"a":["it'\''s"]},"x":"5"}' --port $PORT
siri: flogate register --role siri:participants/siri.yml
web-1: msgflo-nodejs --name web-1 'participants/A b.js'
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"theirs", "nobody"}, without); diff != "" {
		t.Error(diff)
	}
	for _, role := range []string{"a b", "a:b", "ä", "a\nb: c"} {
		if text, _, err := l.Procfile([]library.Node{{Role: role, Component: "n/siri"}}); err == nil {
			t.Errorf("role %q is in %q", role, text)
		}
	}
}
