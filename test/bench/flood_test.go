package main

import (
	"testing"

	"github.com/flogate/flogate/core/discovery"
)

func TestFloodIsHalfMalformedAndAFourthKnown(t *testing.T) {
	const n = 40_000
	ids := map[string]int{}
	malformed := 0
	for i := range n {
		def, err := discovery.Parse(announcementOf(i))
		if err != nil {
			malformed++
			continue
		}
		ids[def.ID]++
	}
	repeated := 0
	for _, times := range ids {
		if times > 1 {
			repeated += times
		}
	}
	if malformed != n/2 || repeated != n/4 || len(ids) != n/4+floodKnown {
		t.Errorf("of %d: %d malformed, %d repeated, %d participants", n, malformed, repeated, len(ids))
	}
}
