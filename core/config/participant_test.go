package config

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestForeignParticipantsAreReadAsTheyAreFound(t *testing.T) {
	for _, tc := range []struct {
		name, role, src string
		want            Participant
	}{
		{
			name: "ports as maps, with the role in the queue", role: "siri",
			src: "component: c-base/siri\nlabel: Siri\nicon: comment\ninports:\n  open: { queue: '#ROLE.OPEN', type: string, description: Say it }\noutports:\n  opened:\n    queue: '#ROLE/#ROLE'\n",
			want: Participant{
				Role: "siri", Component: "c-base/siri", Label: "Siri", Icon: "comment",
				Inports:  []Port{{Name: "open", Type: "string", Address: "siri.OPEN", Description: "Say it"}},
				Outports: []Port{{Name: "opened", Type: "any", Address: "siri/siri"}},
			},
		},
		{
			name: "empty maps, null and missing keys", role: "x",
			src:  "component: a/b\nlabel:\nicon: ~\ninports: {}\noutports:\n",
			want: Participant{Role: "x", Component: "a/b"},
		},
		{
			name: "a port that says nothing", role: "x",
			src:  "component: a/b\noutports:\n  out:\n  other: {}\n",
			want: Participant{Role: "x", Component: "a/b", Outports: []Port{{Name: "out", Type: "any"}, {Name: "other", Type: "any"}}},
		},
		{
			name: "scalars that are no strings, unknown keys, defaults",
			src:  "component: 5\nlabel: 1.10\nrole: yes\nmaintainer: {name: x}\ninports:\n  1: {queue: 7, default: {a: [1]}, type: true, hidden: true, unit: mm}\n",
			want: Participant{Role: "yes", Component: "5", Label: "1.10", Inports: []Port{{Name: "1", Type: "true", Address: "7", Hidden: true}}},
		},
		{
			name: "the role of the caller wins", role: "mine",
			src:  "component: a/b\nrole: its\n",
			want: Participant{Role: "mine", Component: "a/b"},
		},
		{
			name: "anchors and aliases", role: "x",
			src:  "component: a/b\ninports:\n  a: &p {queue: q, type: int}\n  b: *p\n",
			want: Participant{Role: "x", Component: "a/b", Inports: []Port{{Name: "a", Type: "int", Address: "q"}, {Name: "b", Type: "int", Address: "q"}}},
		},
		{
			name: "ports in a list", role: "bulb",
			src: "component: 'my/Bulb'\nrole: other\ninports:\n-\n  id: enable\n  type: boolean\n  queue: '/bulb/#ROLE/set'\noutports: []\n",
			want: Participant{
				Role: "bulb", Component: "my/Bulb",
				Inports: []Port{{Name: "enable", Type: "boolean", Address: "/bulb/bulb/set"}},
			},
		},
		{
			name: "words that other readers take for booleans, empty texts, types of all kinds, keys of others", role: "x",
			src: "component: vacuum\nsource: 'https://example.org'\nlabel: ''\nicon: \"\"\ninports:\noutports:\n" +
				"  on: {queue: x/on, type: bang, datatype: 'http://example.org#on'}\n  no: {queue: x/no, type: all}\n",
			want: Participant{Role: "x", Component: "vacuum", Outports: []Port{
				{Name: "on", Type: "bang", Address: "x/on"}, {Name: "no", Type: "all", Address: "x/no"},
			}},
		},
		{
			name: "defaults that are no strings", role: "x",
			src: "component: a/b\ninports:\n  a: {queue: a, default: 5, type: int}\n  b: {queue: b, default: false}\n" +
				"  c: {queue: c, default: [1, 2]}\n  d: {queue: d, default: }\n  e: {queue: e, default: {f: g}, description: 7}\n",
			want: Participant{Role: "x", Component: "a/b", Inports: []Port{
				{Name: "a", Type: "int", Address: "a"},
				{Name: "b", Type: "any", Address: "b"},
				{Name: "c", Type: "any", Address: "c"},
				{Name: "d", Type: "any", Address: "d"},
				{Name: "e", Type: "any", Address: "e", Description: "7"},
			}},
		},
		{
			name: "options as they are", role: "x",
			src: "component: a/b\ninports:\n  a: {queue: q, options: {qos: 1, deep: {list: [a, 1, true, null]}}}\n",
			want: Participant{Role: "x", Component: "a/b", Inports: []Port{{
				Name: "a", Type: "any", Address: "q", Options: NewSecret(`{"deep":{"list":["a",1,true,null]},"qos":1}`),
			}}},
		},
		{
			name: "JSON, which is YAML", role: "x",
			src:  `{"component": "a/b", "inports": {"in": {"queue": "q"}}}`,
			want: Participant{Role: "x", Component: "a/b", Inports: []Port{{Name: "in", Type: "any", Address: "q"}}},
		},
		{
			name: "text over several lines, Windows' ends of lines, a comment and a document mark", role: "x",
			src:  "# comment\r\n---\r\ncomponent: a/b\r\nlabel: >\r\n  two\r\n  lines\r\n",
			want: Participant{Role: "x", Component: "a/b", Label: "two lines\n"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, diags := ParseParticipant("p.yml", []byte(tc.src), tc.role)
			if diags.HasErrors() {
				t.Fatal(sound(t, diags))
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestForeignParticipantsThatAreWrongAreReportedWithTheirPlace(t *testing.T) {
	for _, tc := range []struct {
		src  string
		line int
		want string
	}{
		{"label: x\n", 1, "Missing component"},
		{"component:\n", 1, "Missing component"},
		{"component: ''\n", 1, "Wrong value"},
		{"component: msgflo/PubSub\n", 1, "Not a participant"},
		{"component: a/b\ncomponent: a/c\n", 2, "No YAML"},
		{"component: a/b\ninports:\n  a: {queue: x}\n  a: {queue: y}\n", 4, "No YAML"},
		{"component: a/b\n---\ncomponent: a/c\n", 3, "Second document"},
		{"component: a/b\ninports:\n\ta: b\n", 3, "No YAML"},
		{"component: a/b\ninports:\n- queue: x\n", 3, "Unusable name"},
		{"component: a/b\ninports:\n- id:\n", 3, "Unusable name"},
		{"component: a/b\ninports:\n- id: a\n- {id: A}\n", 4, "Duplicate inport"},
		{"component: a/b\noutports:\n  a: {}\n  A: {}\n", 4, "Duplicate outport"},
		{"component: a/b\ninports:\n- a\n", 3, "Wrong value"},
		{"component: a/b\ninports: a\n", 2, "Wrong value"},
		{"component: a/b\nlabel: *b\n", 2, "Unknown anchor"},
		{"component: a/b\ninports:\n  a:\n    options: 5\n", 4, "Wrong value"},
		{"component: a/b\nlabel: &a\n  b: [" + strings.Repeat("[", 300) + "\n", 3, "Too deeply nested"},
	} {
		_, diags := ParseParticipant("p.yml", []byte(tc.src), "role")
		if !diags.HasErrors() {
			t.Errorf("%q: no error", tc.src)
			continue
		}
		if d := diags.List[0]; d.Summary != tc.want || d.Where.Start.Line != tc.line {
			t.Errorf("%q: %s on line %d, want %s on line %d\n%s", tc.src, d.Summary, d.Where.Start.Line, tc.want, tc.line, sound(t, diags))
		}
	}
}

func TestAliasesOfAliasesDoNotFillTheMemory(t *testing.T) {
	var b strings.Builder
	b.WriteString("component: a/b\nx0: &x0 [a, a, a, a, a, a, a, a]\n")
	for i := 1; i < 30; i++ {
		n := string(rune('0'+i/10)) + string(rune('0'+i%10))
		m := string(rune('0'+(i-1)/10)) + string(rune('0'+(i-1)%10))
		if i == 1 {
			m = "0"
		}
		b.WriteString("x" + n + ": &x" + n + " [" + strings.Repeat("*x"+m+", ", 7) + "*x" + m + "]\n")
	}
	b.WriteString("inports:\n  in: {queue: q, options: {a: *x29}}\n")
	_, diags := ParseParticipant("p.yml", []byte(b.String()), "role")
	if !diags.HasErrors() || diags.List[0].Summary != "Too large" || len(diags.List) != 1 {
		t.Errorf("%v", diags.List)
	}
}

func TestSecretsAreComparedByTheirText(t *testing.T) {
	one, same := NewSecret("a"), NewSecret(strings.ToLower("A"))
	if one != same || NewSecret("a") == NewSecret("b") || NewSecret("") == (Secret{}) {
		t.Error("== is not equality of texts")
	}
	if (Secret{}).Reveal() != "" || (Secret{}).JSON() != nil || NewSecret("x").Reveal() != "x" {
		t.Error("what is revealed is not what was put in")
	}
	text, err := json.Marshal(map[string]Secret{"none": {}, "some": NewSecret("x")})
	if err != nil || string(text) != `{"none":"","some":"(sensitive)"}` {
		t.Errorf("%s, %v", text, err)
	}
}
