package desk_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/flogate/flogate/core/desk"
	"github.com/flogate/flogate/core/graph"
)

func Example() {
	dir, err := os.MkdirTemp("", "desk")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	d, err := desk.Open(desk.Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := d.Load(desk.Source{Name: "main", Text: "button(demo/Button) PRESSED -> START motor(demo/Motor)", Format: "fbp"}); err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var writing sync.WaitGroup
	writing.Go(func() { _ = d.Run(ctx) })
	sub := d.Subscribe()

	removal, err := graph.ParseChange("removenode", []byte(`{"id":"motor","graph":"main"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := d.Change("main", "ann", removal); err != nil {
		fmt.Println(err)
	}
	if _, err := d.Undo("main", "bob", 0); err != nil {
		fmt.Println(err)
	}
	for range 2 {
		e, err := sub.Next(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, c := range e.Effects {
			payload, _ := graph.Payload(c)
			fmt.Printf("%d %s %s %s\n", e.Revision, e.Who, c.Command(), payload)
		}
	}
	sub.Close()
	stop()
	writing.Wait()
	if err := d.Close(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 ann removeedge {"src":{"node":"button","port":"pressed"},"tgt":{"node":"motor","port":"start"}}
	// 1 ann removenode {"id":"motor"}
	// 2 bob addnode {"id":"motor","component":"demo/Motor","metadata":{}}
	// 2 bob addedge {"src":{"node":"button","port":"pressed"},"tgt":{"node":"motor","port":"start"}}
}
