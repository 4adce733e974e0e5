package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowTask takes an hour to end. It notes when it begins and ends.
type slowTask struct {
	mu    sync.Mutex
	lines []string
}

func (s *slowTask) note(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *slowTask) want(t *testing.T, when string, lines ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.lines, lines) {
		t.Errorf("%s: %q", when, s.lines)
	}
}

func (s *slowTask) version(version string, alone bool) task {
	return task{version: version, alone: alone, run: func(ctx context.Context) error {
		s.note(version + " begins")
		<-ctx.Done()
		time.Sleep(time.Hour)
		s.note(version + " ends")
		return nil
	}}
}

func TestProgramThatTakesLongToEndHoldsUpNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts, s := newTasks(slog.New(slog.DiscardHandler)), &slowTask{}
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		for _, wanted := range []map[string]task{
			{"a": s.version("1", true)},
			{"a": s.version("2", true)},
			{},
			{"a": s.version("3", true), "b": s.version("other", true)},
		} {
			ts.apply(ctx, wanted)
			synctest.Wait()
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it was waited for %s", took)
		}
		s.want(t, "before the first has ended", "1 begins", "other begins")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		// The second never was, because it was not wanted any more when it could have begun.
		s.want(t, "after it", "1 begins", "other begins", "1 ends", "3 begins")
		cancel()
		ts.wait()
	})
}

func TestPortIsFreeWhenTheNextOneWantsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts, s := newTasks(slog.New(slog.DiscardHandler)), &slowTask{}
		ctx, cancel := context.WithCancel(t.Context())
		ts.apply(ctx, map[string]task{"a": s.version("1", false)})
		synctest.Wait()
		ts.apply(ctx, map[string]task{"b": s.version("2", false)})
		synctest.Wait()
		s.want(t, "in the end", "1 begins", "1 ends", "2 begins")
		cancel()
		ts.wait()
	})
}
