package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// sample is what was measured in one round of one cell with one variant.
type sample struct {
	Cell       string             `json:"cell"`
	Variant    string             `json:"variant"`
	Round      int                `json:"round"`
	Throughput float64            `json:"throughput"` // messages that arrived, a second
	P50        time.Duration      `json:"p50"`        // from the intended time
	P99        time.Duration      `json:"p99"`
	CPU        map[string]float64 `json:"cpu"` // µs a message, by process
	RSS        map[string]int64   `json:"rss"` // bytes, by process
	Lost       int                `json:"lost"`
	Doubled    int                `json:"doubled"`
	Disorder   int                `json:"disorder"`
	Others     float64            `json:"others"` // the part of the machine's CPU time that had nothing to do with this
	Error      string             `json:"error,omitempty"`
}

// settings of all cells.
type settings struct {
	warmup, measure time.Duration
	program, dir    string
	urls            map[string]string // of brokers, by transport
	calm            float64           // a cell is measured again when others had more than this of the machine
	unique          int               // addresses that were given out
}

// places returns the ends of an edge, at addresses that nobody has used before.
func (s *settings) places(e edge) (from, to place) {
	s.unique++
	unique := fmt.Sprintf("%d-%d", os.Getpid(), s.unique)
	from = place{kind: e.from, address: "bench-in-" + unique}
	to = place{kind: e.to, address: "bench-out-" + unique}
	from.url, to.url = s.urls[from.transport()], s.urls[to.transport()]
	return from, to
}

// cell measures one variant on one cell. What goes wrong is in the sample; the error is only for ctx.
func (s *settings) cell(ctx context.Context, c cell, v variant) sample {
	var best sample
	for try := range 3 {
		out := sample{Cell: c.String(), Variant: string(v)}
		if err := s.fill(ctx, c, v, &out); err != nil {
			out.Error = err.Error()
		}
		// Loss, and everything else that must not be, counts however busy the machine was.
		if try == 0 || out.Error != "" || out.wrong() || best.Others > out.Others && !best.wrong() && best.Error == "" {
			best = out
		}
		if best.Others <= s.calm || best.Error != "" || best.wrong() || ctx.Err() != nil {
			break
		}
	}
	return best
}

func (s sample) wrong() bool { return s.Lost > 0 || s.Doubled > 0 || s.Disorder > 0 }

// ends are the places of an edge, with somebody who sends at one and counts at the other.
type ends struct {
	from, to place
	meter    *meter
	feeder   feeder
	undo     []func() error
}

// open prepares the places of an edge. retained is for the feeder.
func (s *settings) open(ctx context.Context, e edge, retained bool) (x *ends, err error) {
	x = &ends{meter: newMeter()}
	x.from, x.to = s.places(e)
	defer func() {
		if err != nil {
			err = errors.Join(err, x.close())
		}
	}()
	for _, p := range []place{x.from, x.to} {
		if err := p.prepare(ctx); err != nil {
			return x, fmt.Errorf("prepare %s: %w", p.address, err)
		}
		x.undo = append(x.undo, func() error { return p.remove(context.WithoutCancel(ctx)) })
	}
	endCollect, err := x.to.collect(x.meter.take)
	if err != nil {
		return x, fmt.Errorf("collect: %w", err)
	}
	x.undo = append(x.undo, func() error { endCollect(); return nil })
	if x.feeder, err = x.from.feed(retained); err != nil {
		return x, fmt.Errorf("feed: %w", err)
	}
	x.undo = append(x.undo, func() error { x.feeder.close(); return nil })
	return x, nil
}

// close undoes what open has done, the last first.
func (x *ends) close() error {
	var errs []error
	for _, undo := range slices.Backward(x.undo) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

func (s *settings) fill(ctx context.Context, c cell, v variant, out *sample) (err error) {
	x, err := s.open(ctx, c.edge, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	m, f := x.meter, x.feeder
	carrier, err := start(ctx, v, s.program, s.dir, x.from, x.to)
	if err != nil {
		return err
	}
	defer carrier.stop()
	if err := carrier.await(ctx, f, m); err != nil {
		return err
	}

	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	type loaded struct {
		sent uint64
		err  error
	}
	done := make(chan loaded, 1)
	go func() {
		sent, err := load{feeder: f, meter: m, size: c.size, rate: c.rate, window: window(c.size)}.run(loading)
		done <- loaded{sent, err}
	}()
	wait(ctx, s.warmup)
	before, err := family(carrier.pid)
	if err != nil {
		return errors.Join(err, carrier.running())
	}
	busy := lookBusy()
	begin, arrived := time.Now(), m.measure(true)
	wait(ctx, s.measure)
	arrived = m.measure(false) - arrived
	elapsed := time.Since(begin)
	after, err := family(carrier.pid)
	if err != nil {
		return errors.Join(err, carrier.running())
	}
	out.Others = lookBusy().others(busy)
	stopLoad()
	l := <-done
	if l.err != nil {
		return fmt.Errorf("send: %w", l.err)
	}
	m.drain(ctx, l.sent)

	out.Throughput = float64(arrived) / elapsed.Seconds()
	out.P50, out.P99 = m.quantiles()
	out.CPU, out.RSS = make(map[string]float64), make(map[string]int64)
	for name, cpu := range used(before, after) {
		out.CPU[name] = float64(cpu.Microseconds()) / max(1, float64(arrived))
	}
	for _, p := range after {
		out.RSS[p.name] += p.rss
	}
	came, doubled, disorder := m.counts()
	out.Lost, out.Doubled, out.Disorder = int(l.sent-came), doubled, disorder
	return ctx.Err()
}

// drain waits until everything that was sent has arrived, or nothing comes any more.
func (m *meter) drain(ctx context.Context, sent uint64) {
	last, moved := m.arrived(), time.Now()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; {
		now := m.arrived()
		if now >= sent {
			break
		}
		if now != last {
			last, moved = now, time.Now()
		} else if time.Since(moved) > stall {
			break
		}
		wait(ctx, 5*time.Millisecond)
	}
	wait(ctx, 20*time.Millisecond) // for what comes twice
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
