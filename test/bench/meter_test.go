package main

import (
	"testing"
	"time"
)

func TestMeterTellsLostDoubledAndDisordered(t *testing.T) {
	m := newMeter()
	for _, n := range []uint64{0, 1, 2, 2, 4, 3, 1, 7} {
		m.take(body(100, n, 0))
	}
	m.take([]byte("short"))
	if !m.probed() || m.unique != 5 || m.doubled != 2 || m.disorder != 1 || m.foreign != 1 || m.highest != 7 {
		t.Errorf("unique %d, doubled %d, out of order %d, foreign %d, highest %d",
			m.unique, m.doubled, m.disorder, m.foreign, m.highest)
	}
}

func TestLatencyCountsFromTheIntendedTime(t *testing.T) {
	m := newMeter()
	m.epoch = time.Now().Add(-time.Second)
	m.take(body(100, 1, 0)) // not measured
	m.measure(true)
	m.take(body(100, 2, 400*time.Millisecond)) // should have gone 0.6 s ago
	m.measure(false)
	m.take(body(100, 3, 0))
	p50, p99 := m.quantiles()
	if p50 < 600*time.Millisecond || p50 > 900*time.Millisecond || p99 != p50 {
		t.Errorf("p50 %s, p99 %s", p50, p99)
	}
}

func TestBodyHasTheAskedSize(t *testing.T) {
	for size, want := range map[int]int{1: headBytes, 100: 100, 1024: 1024} {
		if got := len(body(size, 1, 1)); got != want {
			t.Errorf("asked for %d bytes, got %d", size, got)
		}
	}
}
