package wire

import "time"

const (
	// linger is how long a stream pauses between two frames while messages keep coming.
	linger = time.Millisecond
	// Messages keep coming when this many frames in a row had less than maxGap between their messages: about 2,000 messages
	// a second. Below, waking the other process for each costs less than the delay would hurt.
	fastFrames = 4
	maxGap     = 500 * time.Microsecond
	// A frame of this many messages needs no pause: the batches are good as they come.
	goodFrame = 32
	// After a pause that gained nothing (a peer that waits for each answer before it goes on) so many frames go without one.
	restFrames = 32
)

// pace decides how long a stream pauses after a frame. The pause comes after sending and not before, so that a message that
// comes alone is never delayed, and one that comes in a stream by no more than linger.
type pace struct {
	last   time.Time
	fast   int // frames in a row that came fast; negative: to be counted up to before it means anything
	paused bool
}

// sent says that a frame with n messages was sent at now, and returns the pause until the next.
func (p *pace) sent(n int, now time.Time) time.Duration {
	gap := now.Sub(p.last)
	p.last = now
	switch {
	case n <= 1 && p.paused:
		p.fast = -restFrames
	case gap > time.Duration(max(1, n))*maxGap:
		p.fast = min(p.fast, 0)
	case p.fast < fastFrames:
		p.fast++
	}
	p.paused = p.fast == fastFrames && n < goodFrame
	if p.paused {
		return linger
	}
	return 0
}
