package main

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// Each body begins with a message's number, from 1 without gaps, and the time at which it was to be sent, in nanoseconds
// since the meter was made. Number 0 is a probe, by which a bridge is known to work; it does not count.
const headBytes = 16

// maxLatencies bounds what is kept for percentiles; a cell has far fewer.
const maxLatencies = 1 << 22

// meter checks and counts what arrives.
type meter struct {
	epoch time.Time

	mu        sync.Mutex
	probes    int
	seen      []uint64 // a bit for each number
	unique    uint64
	highest   uint64
	doubled   int
	disorder  int
	foreign   int // bodies that nobody has sent
	measuring bool
	latencies []time.Duration
	first     time.Time // when the first message came that is no probe
}

func newMeter() *meter { return &meter{epoch: time.Now()} }

// body makes the body of a message that is to be sent at a time since the epoch.
func body(size int, number uint64, at time.Duration) []byte {
	b := make([]byte, max(size, headBytes))
	binary.BigEndian.PutUint64(b, number)
	binary.BigEndian.PutUint64(b[8:], uint64(at))
	return b
}

// take is called for each message that arrives.
func (m *meter) take(b []byte) {
	now := time.Since(m.epoch)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(b) < headBytes {
		m.foreign++
		return
	}
	number := binary.BigEndian.Uint64(b)
	if number == 0 {
		m.probes++
		return
	}
	word, bit := number/64, uint64(1)<<(number%64)
	if number > m.highest+1<<24 {
		m.foreign++
		return
	}
	for uint64(len(m.seen)) <= word {
		m.seen = append(m.seen, 0)
	}
	if m.seen[word]&bit != 0 {
		m.doubled++
		return
	}
	m.seen[word] |= bit
	if m.unique == 0 {
		m.first = time.Now()
	}
	m.unique++
	// Out of order is what comes for the first time after a later one. What comes again may come late.
	if number < m.highest {
		m.disorder++
	} else {
		m.highest = number
	}
	if m.measuring && len(m.latencies) < maxLatencies {
		m.latencies = append(m.latencies, now-time.Duration(binary.BigEndian.Uint64(b[8:])))
	}
}

func (m *meter) arrived() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unique
}

func (m *meter) probed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.probes > 0
}

// measure begins anew or ends the time in which latencies are kept, and returns how many messages have arrived.
func (m *meter) measure(on bool) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.measuring = on
	if on {
		m.latencies = m.latencies[:0]
	}
	return m.unique
}

// quantiles returns the 50th and 99th percentile of what was measured.
func (m *meter) quantiles() (p50, p99 time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.Sort(m.latencies)
	return percentile(m.latencies, 50), percentile(m.latencies, 99)
}

func (m *meter) counts() (unique uint64, doubled, disorder int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unique, m.doubled + m.foreign, m.disorder
}
