package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// startup is how long a variant takes from nothing to its first message, and what it holds when nothing happens.
type startup struct {
	Edge    string           `json:"edge"`
	Variant string           `json:"variant"`
	Round   int              `json:"round"`
	First   time.Duration    `json:"first"` // from the start of the process to the arrival of a message that waited for it
	RSS     map[string]int64 `json:"rss"`   // bytes, by process
	PSS     map[string]int64 `json:"pss"`
	Error   string           `json:"error,omitempty"`
}

// idleTime is how long nothing has happened when memory is looked at.
const idleTime = time.Second

func (s *settings) startup(ctx context.Context, e edge, v variant) startup {
	out := startup{Edge: e.name(), Variant: string(v), RSS: make(map[string]int64), PSS: make(map[string]int64)}
	if err := s.first(ctx, e, v, &out); err != nil {
		out.Error = err.Error()
	}
	return out
}

func (s *settings) first(ctx context.Context, e edge, v variant, out *startup) (err error) {
	x, err := s.open(ctx, e, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.close()) }()
	m, f := x.meter, x.feeder
	if err := f.publish(body(100, 1, 0)); err != nil {
		return err
	}
	wait(ctx, 200*time.Millisecond) // for the message to be there
	c, err := start(ctx, v, s.program, s.dir, x.from, x.to)
	if err != nil {
		return err
	}
	defer c.stop()
	for deadline := time.Now().Add(readyTime); m.arrived() == 0; wait(ctx, time.Millisecond) {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("%w: %s", errNotReady, c.output.String())
		}
		if err := c.running(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	out.First = m.first.Sub(c.began)
	m.mu.Unlock()
	wait(ctx, idleTime)
	ps, err := family(c.pid)
	for _, p := range ps {
		out.RSS[p.name] += p.rss
		out.PSS[p.name] += p.pss
	}
	return err
}
