package main

import (
	"strings"
	"testing"
	"time"
)

func TestTableHasMediansAndRatiosOfTheSameRound(t *testing.T) {
	var r results
	c := cell{edge{mqtt1, amqpQueue}, 1024, 0}.String()
	add := func(v variant, throughputs ...float64) {
		for round, n := range throughputs {
			r.Samples = append(r.Samples, sample{
				Cell: c, Variant: string(v), Round: round, Throughput: n, P50: time.Millisecond,
				CPU: map[string]float64{"mqtt": 10, "core": 5},
			})
		}
	}
	add(hand, 1000, 500, 2000)
	add(processes, 1100, 600, 1800)
	r.Samples[4].Lost = 7
	r.Samples = append(r.Samples, sample{Cell: c, Variant: string(none), Error: "it broke"})
	var out strings.Builder
	r.markdown(&out)
	for _, want := range []string{
		"### saturated",
		"| mqtt1-amqp 1 KiB | hand | 1000 | 150% | 1.00 | – | 15 = core 5 + mqtt 10 |",
		"| mqtt1-amqp 1 KiB | processes | 1100 | 109% | 1.10 |",
		"| 7, 0, 0 |",
		"| mqtt1-amqp 1 KiB | none | failed: it broke |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestFlagsSelectCells(t *testing.T) {
	for args, want := range map[string]int{
		"": 7 * 3 * 3,
		"-edges mqtt1-amqp,amqp-amqp -sizes 100 -rates saturated": 2,
		"-reduced": 7*3 + 7*2,
		"-quick":   7 * 3,
	} {
		o, err := parse(strings.Fields(args), t.Output())
		if err != nil {
			t.Fatal(err)
		}
		if got := len(o.cells()); got != want {
			t.Errorf("%q selects %d cells, want %d", args, got, want)
		}
	}
	for _, args := range []string{"-edges mqtt2-amqp", "-rates 0", "-sizes x", "-variants fast", "-rounds 0", "what"} {
		if _, err := parse(strings.Fields(args), t.Output()); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestBridgeFindsItsArgumentsAgain(t *testing.T) {
	from, to := place{mqtt1, "mqtt://a", "x"}, place{amqpQueue, "amqp://b/c", "y"}
	gotFrom, gotTo, joined, err := bridgeOf(bridgeArgs(from, to, true))
	if err != nil || gotFrom != from || gotTo != to || !joined {
		t.Errorf("got %v, %v, %v, %v", gotFrom, gotTo, joined, err)
	}
	if _, _, _, err := bridgeOf([]string{bridgeCommand}); err == nil {
		t.Error("no arguments are taken")
	}
}
