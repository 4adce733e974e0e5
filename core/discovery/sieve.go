package discovery

import (
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// sieve lets each text pass once, and no more than a few: the log is for people, and what it says is made by whoever can
// send a message. Its memory is bounded: it forgets the oldest texts, and by then some are worth saying again. Its methods
// may be called concurrently.
type sieve struct {
	seed maphash.Seed
	rate *rate.Limiter

	mu       sync.Mutex
	known    map[uint64]struct{}
	ring     [256]uint64 // what is known, in the order in which it passed
	next     int
	unlogged int
}

// newSieve returns a sieve through which 20 texts pass at once, and then one each 10 seconds: enough for a person to see
// what goes on, and 9,000 lines a day at most.
func newSieve() *sieve {
	return &sieve{
		seed:  maphash.MakeSeed(),
		rate:  rate.NewLimiter(rate.Every(10*time.Second), 20),
		known: make(map[uint64]struct{}),
	}
}

// pass says whether text shall be said, and how many others have not been since the last one that was, because they were
// too many. Those that were said before are none of them.
func (s *sieve) pass(text string) (unlogged int, is bool) {
	sum := maphash.String(s.seed, text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.known[sum]; ok {
		return 0, false
	}
	if !s.rate.Allow() {
		s.unlogged++
		return 0, false
	}
	if len(s.known) == len(s.ring) {
		delete(s.known, s.ring[s.next])
	}
	s.known[sum] = struct{}{}
	s.ring[s.next] = sum
	s.next = (s.next + 1) % len(s.ring)
	unlogged, s.unlogged = s.unlogged, 0
	return unlogged, true
}
