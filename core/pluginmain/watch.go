package pluginmain

import (
	"context"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/stats"
)

const (
	// goneAfter is how long a plugin waits for a connection after the last has ended.
	goneAfter = 300 * time.Millisecond
	// parentEvery is how often it looks who its parent is: for a gateway that dies before it has connected.
	parentEvery = 500 * time.Millisecond
)

// watch notices that the gateway is gone, from the connections of a gRPC server and from the parent process.
type watch struct {
	mu    sync.Mutex
	conns int
	timer *time.Timer
	once  sync.Once
	gone  chan struct{}
}

func newWatch() *watch { return &watch{gone: make(chan struct{})} }

var _ stats.Handler = (*watch)(nil)

// wait blocks until the gateway is gone, and reports true, or ctx ends.
func (w *watch) wait(ctx context.Context) bool {
	select {
	case <-w.gone:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *watch) end() { w.once.Do(func() { close(w.gone) }) }

// watchParent returns when the parent process is not the one with this id any more, or ctx ends.
func (w *watch) watchParent(ctx context.Context, pid int) {
	tick := time.NewTicker(parentEvery)
	defer tick.Stop()
	for os.Getppid() == pid {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	w.end()
}

// HandleConn implements [stats.Handler].
func (w *watch) HandleConn(_ context.Context, s stats.ConnStats) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch s.(type) {
	case *stats.ConnBegin:
		w.conns++
		if w.timer != nil {
			w.timer.Stop()
		}
	case *stats.ConnEnd:
		w.conns--
		if w.conns == 0 {
			w.timer = time.AfterFunc(goneAfter, w.lonely)
		}
	}
}

// lonely is called some time after the last connection has ended.
func (w *watch) lonely() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns == 0 {
		w.end()
	}
}

// TagConn implements [stats.Handler].
func (w *watch) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// TagRPC implements [stats.Handler].
func (w *watch) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements [stats.Handler].
func (w *watch) HandleRPC(context.Context, stats.RPCStats) {}
