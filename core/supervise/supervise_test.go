package supervise

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errCrash = errors.New("crash")

// watch runs task under policy in virtual time until it stays, and returns the
// changes and what Run returned after being cancelled at end.
func watch(t *testing.T, policy Policy, end time.Duration, task func(ctx context.Context, run int) error) (changes []Status, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), end)
		defer cancel()
		policy.OnChange = func(s Status) { changes = append(changes, s) }
		runs := 0
		err = Run(ctx, "task", policy, func(ctx context.Context) error {
			runs++
			return task(ctx, runs)
		})
	})
	return changes, err
}

func block(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestFailedTaskRunsAgainAfterABoundedWait(t *testing.T) {
	changes, err := watch(t, Policy{}, time.Hour, func(ctx context.Context, run int) error {
		if run <= 3 {
			return errCrash
		}
		return block(ctx)
	})
	if err != nil {
		t.Fatalf("cancelled Run returned %v", err)
	}
	want := []State{Running, Waiting, Running, Waiting, Running, Waiting, Running}
	if len(changes) != len(want) {
		t.Fatalf("changes: %+v", changes)
	}
	limit := 400 * time.Millisecond
	for i, s := range changes {
		if s.State != want[i] {
			t.Fatalf("change %d: %+v", i, s)
		}
		if s.State == Waiting {
			if s.Wait < 200*time.Millisecond || s.Wait > limit || !errors.Is(s.Err, errCrash) {
				t.Fatalf("change %d: %+v, limit %s", i, s, limit)
			}
			limit *= 2
		}
	}
	if last := changes[len(changes)-1]; last.Restarts != 3 {
		t.Fatalf("restarts: %+v", last)
	}
}

func TestCrashLoopEndsAsFailed(t *testing.T) {
	runs := 0
	changes, err := watch(t, Policy{}, time.Hour, func(context.Context, int) error {
		runs++
		return errCrash
	})
	if err != nil {
		t.Fatal(err)
	}
	last := changes[len(changes)-1]
	if runs != 5 || last.State != Failed || !errors.Is(last.Err, errCrash) || last.Wait != 0 {
		t.Fatalf("%d runs, last %+v", runs, last)
	}
}

func TestFailedTaskGetsAnotherChanceAfterItsRest(t *testing.T) {
	changes, _ := watch(t, Policy{Rest: 10 * time.Minute}, time.Hour, func(ctx context.Context, run int) error {
		if run <= 5 {
			return errCrash
		}
		return block(ctx)
	})
	failed, last := changes[len(changes)-2], changes[len(changes)-1]
	if failed.State != Failed || failed.Wait != 10*time.Minute || last.State != Running || last.Restarts != 5 {
		t.Fatalf("%+v, %+v", failed, last)
	}
}

func TestRareFailuresNeverEndAsFailed(t *testing.T) {
	changes, _ := watch(t, Policy{}, 24*time.Hour, func(ctx context.Context, _ int) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Minute):
			return errCrash
		}
	})
	if len(changes) < 1000 {
		t.Fatalf("only %d changes in a day", len(changes))
	}
	for _, s := range changes {
		if s.State == Failed || s.Wait > 400*time.Millisecond {
			t.Fatalf("%+v", s)
		}
	}
}

func TestTaskThatIsDoneIsNotRestarted(t *testing.T) {
	changes, err := watch(t, Policy{}, time.Hour, func(context.Context, int) error { return nil })
	if err != nil || len(changes) != 1 {
		t.Fatalf("%v, %+v", err, changes)
	}
}

func TestCancelEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		before := time.Now()
		err := Run(ctx, "task", Policy{Min: time.Hour, Max: time.Hour, OnChange: func(s Status) {
			if s.State == Waiting {
				cancel()
			}
		}}, func(context.Context) error { return errCrash })
		if err != nil || time.Since(before) != 0 {
			t.Fatalf("%v after %s", err, time.Since(before))
		}
	})
}

func TestErrorOfCleaningUpIsReturned(t *testing.T) {
	_, err := watch(t, Policy{}, time.Second, func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return errCrash
	})
	if !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
}

func TestWaitStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{
			Min: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "min")),
			Max: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "max")),
		}.withDefaults()
		if w := p.wait(rapid.IntRange(0, 1_000_000).Draw(t, "streak")); w < p.Min || w > p.Max {
			t.Fatalf("waits %s, bounds %s and %s", w, p.Min, p.Max)
		}
	})
}
