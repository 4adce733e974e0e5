package mqtt

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTopicsAndFilters(t *testing.T) {
	for _, tt := range []struct {
		s             string
		topic, filter error
	}{
		{s: "a"},
		{s: "/"},
		{s: "a//b/"},
		{s: "Ünïcødé ☃ and spaces"},
		{s: "$internal/x"},
		{s: strings.Repeat("x", 65535)},
		{s: "", topic: errTopicEmpty, filter: errTopicEmpty},
		{s: strings.Repeat("x", 65536), topic: errTopicLong, filter: errTopicLong},
		{s: "a\x00b", topic: errTopicText, filter: errTopicText},
		{s: "a\xff", topic: errTopicText, filter: errTopicText},
		{s: "$SYS/x", topic: errTopicSys},
		{s: "+", topic: errTopicWildcard},
		{s: "#", topic: errTopicWildcard},
		{s: "+/a/+/#", topic: errTopicWildcard},
		{s: "a+", topic: errTopicWildcard, filter: errFilterPlus},
		{s: "a/+b/c", topic: errTopicWildcard, filter: errFilterPlus},
		{s: "a#", topic: errTopicWildcard, filter: errFilterHash},
		{s: "#/a", topic: errTopicWildcard, filter: errFilterHash},
		{s: "a/#/", topic: errTopicWildcard, filter: errFilterHash},
		{s: "$share/g/a", topic: errTopicShare},
		{s: "$share/g/+/#", topic: errTopicWildcard},
		{s: "$share/g", topic: errTopicShare, filter: errFilterShare},
		{s: "$share/g/", topic: errTopicShare, filter: errFilterShare},
		{s: "$share//a", topic: errTopicShare, filter: errFilterShare},
		{s: "$share/+/a", topic: errTopicWildcard, filter: errFilterShare},
		{s: "$share/g/a#", topic: errTopicWildcard, filter: errFilterHash},
	} {
		if err := validateTopic(tt.s); !errors.Is(err, tt.topic) {
			t.Errorf("validateTopic(%.40q) = %v; want %v", tt.s, err, tt.topic)
		}
		if err := validateFilter(tt.s); !errors.Is(err, tt.filter) {
			t.Errorf("validateFilter(%.40q) = %v; want %v", tt.s, err, tt.filter)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		filter, topic string
		want          bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a/", false},
		{"a/", "a", false},
		{"a/b", "a/b", true},
		{"a/b", "a/b/c", false},
		{"a/b/c", "a/b", false},
		{"+", "a", true},
		{"+", "", true},
		{"+", "/a", false},
		{"/+", "/a", true},
		{"+/+", "/a", true},
		{"a/+", "a/", true},
		{"a/+", "a", false},
		{"a/+/c", "a/b/c", true},
		{"a/+/c", "a//c", true},
		{"#", "a/b", true},
		{"#", "/", true},
		{"a/#", "a", true},
		{"a/#", "a/", true},
		{"a/#", "a/b/c", true},
		{"a/#", "ab", false},
		{"+/#", "a", true},
		{"a/+/#", "a/b", true},
		{"a/+/#", "a", false},
		{"#", "$SYS/x", false},
		{"+/x", "$SYS/x", false},
		{"$SYS/#", "$SYS/x", true},
		{"$SYS/+", "$SYS/x", true},
		{"$share/g/a/+", "a/b", true},
		{"$share/g/a/+", "b/b", false},
	} {
		if got := matches(tt.filter, tt.topic); got != tt.want {
			t.Errorf("matches(%q, %q) = %t; want %t", tt.filter, tt.topic, got, tt.want)
		}
	}
}

// What a broker delivers must never be taken for something that was not asked for.
func TestFilterMadeOfATopicMatchesIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		levels := rapid.SliceOfN(rapid.StringMatching(`[a-c]{0,2}`), 1, 6).Draw(t, "levels")
		topic := strings.Join(levels, "/")
		filter := make([]string, len(levels))
		for i, l := range levels {
			filter[i] = rapid.SampledFrom([]string{l, "+"}).Draw(t, "level")
		}
		if cut := rapid.IntRange(0, len(levels)).Draw(t, "cut"); rapid.Bool().Draw(t, "hash") {
			filter = append(filter[:cut], "#")
		}
		if f := strings.Join(filter, "/"); !matches(f, topic) {
			t.Fatalf("%q does not match %q", f, topic)
		}
	})
}

func TestClientIDs(t *testing.T) {
	seen := map[string]string{}
	for _, names := range [][2]string{
		{"site/house", "a.out"},
		{"site/house", "aout"},
		{"site/hous", "ea.out"},
		{"site", "house/a.out"},
		{"", ""},
		{"☃", "☃☃☃"},
		{strings.Repeat("long", 100), strings.Repeat("name", 100)},
	} {
		id := subscriberID("", names[0], names[1])
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q have the id %q", names, other, id)
		}
		seen[id] = strings.Join(names[:], ", ")
		if id != subscriberID("", names[0], names[1]) {
			t.Errorf("the id of %q changes", names)
		}
		if len(id) == 0 || len(id) > 23 || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			t.Errorf("a server need not accept the id %q", id)
		}
	}
	if got, want := subscriberID("", "site/house", "thermometer.out"), "thermometenh7jq34lr6jqf"; got != want {
		t.Errorf("the id is %q; want %q, or sessions are lost by an update", got, want)
	}
	if a, b := publisherID("", "site/house"), publisherID("", "site/house"); a == b || len(a) > 23 {
		t.Errorf("ids of publishing clients are %q and %q", a, b)
	}
	if id := subscriberID("gw", "site", "x"); !strings.HasPrefix(id, "gw-") {
		t.Errorf("an id with the prefix gw is %q", id)
	}
}
