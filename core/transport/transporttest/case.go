package transporttest

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// A testCase is one rule of the contract.
type testCase struct {
	// name is the rule, as a sentence.
	name string
	// needs names the fields of the Target without which the rule cannot be shown.
	needs []string
	// unless returns why the rule does not apply to the target, or "". May be nil.
	unless func(Target) string
	// run fails s when the rule is broken.
	run func(s *scene)
}

// without returns why the case cannot be run against the target, or "".
func (c testCase) without(target Target) string {
	for _, name := range c.needs {
		if why, lacks := target.Lacks[name]; lacks {
			return "no " + name + ": " + why
		}
	}
	if c.unless != nil {
		return c.unless(target)
	}
	return ""
}

// examine runs the case. It returns within limit and what it takes to clean up, whatever the driver does: a driver that
// does not come back is left where it is, with its stack in the report.
func (c testCase) examine(tb testing.TB, target Target, limit time.Duration) *caseT {
	t := &caseT{TB: tb}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()

	before := map[string]bool{}
	t.step(limit, func() {
		s := &scene{TB: t, ctx: ctx, target: target, driver: target.New(t)}
		// Whatever New has started lives as long as the driver does.
		for _, g := range goroutines() {
			before[g.id] = true
		}
		c.run(s)
	})
	cancel()
	for f := t.nextCleanup(); f != nil; f = t.nextCleanup() {
		t.step(10*time.Second, f)
	}
	if !t.hung() {
		t.checkGoroutines(before, target.Foreign)
	}
	return t
}

// report passes on what the case has found.
func (c testCase) report(tb testing.TB, t *caseT) {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.lines {
		tb.Log(l)
	}
	if t.failed {
		tb.Fail()
	}
}

// caseT is the testing.TB of one case. It keeps what is said until the case is over, so that a goroutine that hangs in a
// driver and comes back much later does no harm, and so that the suite's own tests can see a case fail.
type caseT struct {
	testing.TB

	mu       sync.Mutex
	lines    []string
	failed   bool
	stuck    bool
	cleanups []func()
}

// step runs f in a goroutine of its own, as FailNow ends the goroutine, and waits for it at most for limit and a bit.
func (t *caseT) step(limit time.Duration, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				t.fail(fmt.Sprintf("panic: %v\n%s", r, debug.Stack()))
			}
		}()
		f()
	}()
	patience := time.NewTimer(limit + 3*time.Second)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
		t.mu.Lock()
		t.stuck = true
		t.mu.Unlock()
		t.fail(fmt.Sprintf("still not back %v after the context ended: a call does not heed its context\n%s", 3*time.Second, stacks()))
	}
}

func (t *caseT) nextCleanup() func() {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.cleanups)
	if n == 0 {
		return nil
	}
	f := t.cleanups[n-1]
	t.cleanups = t.cleanups[:n-1]
	return f
}

func (t *caseT) hung() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stuck
}

func (t *caseT) fail(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
	t.lines = append(t.lines, line)
}

// Helper does nothing: the place that is reported is the line of the case itself.
func (t *caseT) Helper() {}

// Cleanup registers f to be run when the case is over, last in first out.
func (t *caseT) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// Log and Logf keep a line for the report.
func (t *caseT) Log(args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

// Logf keeps a line for the report.
func (t *caseT) Logf(format string, args ...any) { t.Log(fmt.Sprintf(format, args...)) }

// Error and its like fail the case, Fatal and its like end it too.
func (t *caseT) Error(args ...any) {
	t.fail(place() + strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

// Errorf is Error with a format.
func (t *caseT) Errorf(format string, args ...any) { t.fail(place() + fmt.Sprintf(format, args...)) }

// Fatal is Error, and ends the case.
func (t *caseT) Fatal(args ...any) {
	t.Error(args...)
	runtime.Goexit()
}

// Fatalf is Fatal with a format.
func (t *caseT) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// Fail fails the case.
func (t *caseT) Fail() { t.fail(place() + "failed") }

// FailNow fails the case and ends it.
func (t *caseT) FailNow() {
	t.Fail()
	runtime.Goexit()
}

// Failed reports whether the case has failed.
func (t *caseT) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// Skip fails the case: what a target cannot do it says in Lacks.
func (t *caseT) Skip(args ...any) {
	t.Fatal("a target may not skip: " + fmt.Sprint(args...))
}

// Skipf fails the case.
func (t *caseT) Skipf(format string, args ...any) { t.Skip(fmt.Sprintf(format, args...)) }

// SkipNow fails the case.
func (t *caseT) SkipNow() { t.Skip() }

// Skipped returns false.
func (t *caseT) Skipped() bool { return false }

// place returns the line of the case that the caller was called from.
func place() string {
	pc := make([]uintptr, 32)
	frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc)])
	for {
		f, more := frames.Next()
		if file := filepath.Base(f.File); strings.HasPrefix(file, "cases_") {
			return fmt.Sprintf("%s:%d: ", file, f.Line)
		}
		if !more {
			return ""
		}
	}
}

// checkGoroutines fails the case when goroutines are left over that were not there before.
func (t *caseT) checkGoroutines(before map[string]bool, foreign func(string) bool) {
	var left []goroutine
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left = left[:0]
		for _, g := range goroutines() {
			if !before[g.id] && (foreign == nil || !foreign(g.stack)) && !strings.Contains(g.stack, "transporttest.goroutines") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	for _, g := range left {
		t.fail("a goroutine has survived its connection:\n" + g.stack)
	}
}

type goroutine struct{ id, stack string }

// goroutines returns all goroutines, the caller's first.
func goroutines() []goroutine {
	var gs []goroutine
	for s := range bytes.SplitSeq(stacks(), []byte("\n\n")) {
		head, _, _ := bytes.Cut(s, []byte(" ["))
		gs = append(gs, goroutine{id: string(head), stack: string(s)})
	}
	return gs
}

func stacks() []byte {
	for size := 1 << 18; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return buf[:n]
		}
	}
}
