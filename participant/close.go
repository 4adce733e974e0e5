package participant

import (
	"context"
	"sync"
	"time"
)

// closeTimeout bounds closing what may not answer.
const closeTimeout = 2 * time.Second

// closeIt closes a subscription or a publisher. What cannot be closed dies with its connection.
func closeIt(ctx context.Context, end func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = end(ctx)
}

// flag is set once. The zero value is of no use: see newFlag.
type flag struct {
	once sync.Once
	ch   chan struct{}
}

func newFlag() *flag                  { return &flag{ch: make(chan struct{})} }
func (f *flag) set()                  { f.once.Do(func() { close(f.ch) }) }
func (f *flag) done() <-chan struct{} { return f.ch }
