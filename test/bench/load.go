package main

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

// load sends messages: at a rate, or as many as get through with a bounded number on the way.
type load struct {
	feeder feeder
	meter  *meter
	size   int
	rate   int
	window uint64
}

// stall is after how long without an arrival what is on the way counts as lost, so that it does not keep the rest from
// being sent.
const stall = 2 * time.Second

// run sends until ctx ends and returns how many it has sent.
func (l load) run(ctx context.Context) (uint64, error) {
	runtime.LockOSThread() // nap sleeps on it
	defer runtime.UnlockOSThread()
	if l.rate > 0 {
		return l.steady(ctx)
	}
	return l.saturate(ctx)
}

// steady sends message i at its time, or as soon after as it can. The body says when its time was: a message that has to
// wait here because an earlier one did is late too.
func (l load) steady(ctx context.Context) (uint64, error) {
	begin := time.Since(l.meter.epoch)
	interval := time.Second / time.Duration(l.rate)
	for sent := uint64(0); ; sent++ {
		at := begin + time.Duration(sent)*interval
		for now := time.Since(l.meter.epoch); now < at; now = time.Since(l.meter.epoch) {
			if ctx.Err() != nil {
				return sent, nil //nolint:nilerr // that time is up is how a load ends
			}
			nap(min(at-now, 10*time.Millisecond))
		}
		if ctx.Err() != nil {
			return sent, nil //nolint:nilerr // that time is up is how a load ends
		}
		if err := l.feeder.publish(body(l.size, sent+1, at)); err != nil {
			return sent, err
		}
	}
}

func (l load) saturate(ctx context.Context) (uint64, error) {
	var given uint64 // up as lost
	var last uint64
	moved := time.Now()
	for sent := uint64(0); ; {
		arrived := l.meter.arrived()
		if arrived != last {
			last, moved = arrived, time.Now()
		} else if time.Since(moved) > stall {
			given, moved = sent-arrived, time.Now()
		}
		if ctx.Err() != nil {
			return sent, nil //nolint:nilerr // that time is up is how a load ends
		}
		if arrived+given+l.window <= sent {
			nap(100 * time.Microsecond)
			continue
		}
		for ; sent < arrived+given+l.window; sent++ {
			if err := l.feeder.publish(body(l.size, sent+1, time.Since(l.meter.epoch))); err != nil {
				return sent, err
			}
		}
	}
}

// nap sleeps in the kernel: the timers of the runtime are up to a millisecond late in a process that has little to do, which
// would be taken for latency. The calling goroutine has to be locked to its thread.
func nap(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&ts, nil) // woken early, the caller looks at the clock again
}

// window is how many messages are on the way when as many as possible are sent: four times what a bridge keeps in flight,
// and not more than 16 MiB.
func window(size int) uint64 {
	return min(4*bridgeWindow, uint64(16<<20/max(size, 1)))
}
