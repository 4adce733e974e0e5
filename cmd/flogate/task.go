package main

import (
	"context"
	"log/slog"
	"maps"
	"sync"
)

// task is something that runs as long as the site wants it.
type task struct {
	// version changes when the task has to be started anew.
	version string
	run     func(ctx context.Context) error
	// alone: nobody but a task of the same name wants what it has, so that its end is not waited for.
	alone bool
}

// tasks runs what the site wants and stops what it does not want any more. A task whose version changes starts again when
// the one before has ended, because both would want the same port or folder.
type tasks struct {
	log    *slog.Logger
	mu     sync.Mutex
	runs   map[string]*taskRun
	ending map[string]*taskRun // those that were not waited for
	wg     sync.WaitGroup
}

type taskRun struct {
	version string
	alone   bool
	stop    context.CancelFunc
	done    chan struct{}
}

func (r *taskRun) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func newTasks(log *slog.Logger) *tasks {
	return &tasks{log: log, runs: make(map[string]*taskRun), ending: make(map[string]*taskRun)}
}

// apply makes what runs what is wanted. It blocks until what is not wanted has ended, but for what is alone: a program may take
// seconds. ctx is the life of the tasks.
func (t *tasks) apply(ctx context.Context, wanted map[string]task) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.ending, func(_ string, run *taskRun) bool { return run.ended() })
	var ending []*taskRun
	for name, run := range t.runs {
		if w, ok := wanted[name]; !ok || w.version != run.version {
			run.stop()
			if run.alone {
				t.ending[name] = run
			} else {
				ending = append(ending, run)
			}
			delete(t.runs, name)
		}
	}
	for _, run := range ending {
		<-run.done
	}
	for name, w := range wanted {
		if t.runs[name] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		run := &taskRun{version: w.version, alone: w.alone, stop: stop, done: make(chan struct{})}
		t.runs[name] = run
		before := t.ending[name]
		t.wg.Go(func() {
			defer close(run.done)
			defer stop()
			if before != nil {
				<-before.done // also where this one is not wanted any more: who comes next waits for this one only
			}
			if ctx.Err() != nil {
				return
			}
			if err := w.run(ctx); err != nil && ctx.Err() == nil {
				t.log.Error("stopped working", "task", name, "error", err)
			}
		})
	}
}

// wait blocks until every task has ended.
func (t *tasks) wait() { t.wg.Wait() }
