package main

import (
	"context"
	"log/slog"
	"sync"
)

// task is something that runs as long as the site wants it.
type task struct {
	// version changes when the task has to be started anew.
	version string
	run     func(ctx context.Context) error
}

// tasks runs what the site wants and stops what it does not want any more. A task whose version changes starts again when
// the one before has ended, because both would want the same port or folder.
type tasks struct {
	log  *slog.Logger
	mu   sync.Mutex
	runs map[string]*taskRun
	wg   sync.WaitGroup
}

type taskRun struct {
	version string
	stop    context.CancelFunc
	done    chan struct{}
}

func newTasks(log *slog.Logger) *tasks {
	return &tasks{log: log, runs: make(map[string]*taskRun)}
}

// apply makes what runs what is wanted. It blocks until what is not wanted has ended. ctx is the life of the tasks.
func (t *tasks) apply(ctx context.Context, wanted map[string]task) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ending []*taskRun
	for name, run := range t.runs {
		if w, ok := wanted[name]; !ok || w.version != run.version {
			run.stop()
			ending = append(ending, run)
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
		run := &taskRun{version: w.version, stop: stop, done: make(chan struct{})}
		t.runs[name] = run
		t.wg.Go(func() {
			defer close(run.done)
			defer stop()
			if err := w.run(ctx); err != nil && ctx.Err() == nil {
				t.log.Error("stopped working", "task", name, "error", err)
			}
		})
	}
}

// wait blocks until every task has ended.
func (t *tasks) wait() { t.wg.Wait() }
