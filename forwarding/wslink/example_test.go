package wslink_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/flogate/flogate/forwarding"
	"github.com/flogate/flogate/forwarding/wslink"
)

// A session is two goroutines: one reads requests, one writes what is in the outbox. Whoever has something for the client puts
// it into the outbox, and never waits.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	session := func(ctx context.Context, conn *wslink.Conn, _ wslink.Client) {
		outbox := forwarding.NewOutbox(0, 0)
		var writing sync.WaitGroup
		defer writing.Wait()
		defer outbox.Close(net.ErrClosed)
		writing.Go(func() {
			var frames [][]byte
			for {
				var err error
				frames, _, err = outbox.Take(ctx, frames[:0])
				if errors.Is(err, forwarding.ErrBehind) {
					_ = conn.Close(wslink.TryLater, "too slow") // which ends the reading, too
				}
				if err != nil || conn.Write(ctx, frames...) != nil {
					return
				}
			}
		})
		for {
			request, err := conn.Read(ctx)
			if err != nil {
				return
			}
			if outbox.Push(append([]byte("answer to "), request...)) != nil {
				return
			}
		}
	}

	server, err := wslink.NewServer(wslink.ServerOptions{}, slog.New(slog.DiscardHandler), session)
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()

	client, err := wslink.Dial(ctx, "ws://"+l.Addr().String(), wslink.DialOptions{Header: http.Header{"User-Agent": {"example"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := client.Write(ctx, []byte("getruntime"), []byte("list")); err != nil {
		fmt.Println(err)
	}
	for range 2 {
		answer, err := client.Read(ctx)
		fmt.Println(string(answer), err)
	}
	fmt.Println(client.Close(wslink.Normal, ""))
	cancel()
	fmt.Println(<-done)
	// Output:
	// answer to getruntime <nil>
	// answer to list <nil>
	// <nil>
	// <nil>
}
