package main

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStatOfAProcessWithAnUglyName(t *testing.T) {
	line := "4711 (a) b (c) S 42 4711 4711 0 -1 4194560 1000 0 0 0 150 50 7 8 20 0 9 0 1 2 3\n"
	got, err := parseStat([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if want := (stat{parent: 42, cpu: 2 * time.Second}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestStatThatIsNoneIsAnError(t *testing.T) {
	for _, line := range []string{"", "1 (a) S 1 2 3", "1 a S 1", "1 (a) S x 1 1 0 -1 1 1 0 0 0 1 1 0"} {
		if s, err := parseStat([]byte(line)); err == nil {
			t.Errorf("%q is %+v", line, s)
		}
	}
}

func TestMemoryIsInBytes(t *testing.T) {
	const status = "Name:\tx\nVmHWM:\t    99 kB\nVmRSS:\t   12 kB\nThreads:\t4\n"
	if got, err := parseKB([]byte(status), "VmRSS"); err != nil || got != 12<<10 {
		t.Errorf("got %d, %v", got, err)
	}
	if got, err := parseKB([]byte(status), "Pss"); err == nil {
		t.Errorf("got %d of nothing", got)
	}
}

func TestProcessesAreNamedAfterWhatTheyDo(t *testing.T) {
	for want, args := range map[string][]string{
		"mqtt":   {"/tmp/flogate", "plugin", "mqtt"},
		"core":   {"/tmp/flogate", "--config", "site.hcl"},
		"bridge": {"/tmp/bench", bridgeCommand, "mqtt1"},
	} {
		if got := nameOf(args); got != want {
			t.Errorf("%q is called %s, want %s", args, got, want)
		}
	}
}

func TestThisProcessIsInItsFamily(t *testing.T) {
	ps, err := family(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if ps[0].pid != os.Getpid() || ps[0].rss < 1<<20 {
		t.Errorf("got %+v", ps[0])
	}
}

func TestUsedIsWhatPassedBetweenTwoLooks(t *testing.T) {
	before := []proc{{pid: 1, name: "core", cpu: 5}, {pid: 2, name: "mqtt", cpu: 1}}
	after := []proc{{pid: 1, name: "core", cpu: 8}, {pid: 2, name: "mqtt", cpu: 3}, {pid: 3, name: "mqtt", cpu: 4}}
	if diff := cmp.Diff(map[string]time.Duration{"core": 3, "mqtt": 6}, used(before, after)); diff != "" {
		t.Error(diff)
	}
}
