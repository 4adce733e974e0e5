//go:build peers

package msgflo

import (
	"context"
	"strconv"
	"testing"

	"github.com/flogate/flogate/core/discovery"
	"github.com/flogate/flogate/participant"
)

// goRepeat runs a Repeat of package participant until the function that it returns is called.
func goRepeat(t *testing.T, brokerURL, role string) (stop func()) {
	t.Helper()
	ready := make(chan struct{})
	p := participant.New(participant.Definition{
		Role: role, Component: "Repeat",
		Inports:  []participant.Port{{ID: "in"}},
		Outports: []participant.Port{{ID: "out"}},
	}, participant.Config{Ready: func() { close(ready) }})
	p.Handle("in", func(ctx context.Context, msg participant.Message) error {
		return p.Send(ctx, "out", participant.Message{Body: msg.Body})
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, brokerURL) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestLibrariesShareARole: what one library has made on a broker, the other takes as it is, whoever comes first. RabbitMQ ends
// the channel of somebody who declares a queue or an exchange otherwise.
func TestLibrariesShareARole(t *testing.T) {
	for _, kind := range kinds {
		for _, first := range []string{"go", "nodejs", "noflo"} {
			t.Run(kind+"/"+first+" first", func(t *testing.T) {
				t.Parallel()
				h := open(t, kind)
				announced, out := h.read(t, "fbp"), h.hear(t, "repeat.OUT")
				for i, library := range []string{first, "go", "nodejs", "noflo"} {
					stop := func() {}
					switch library {
					case "go":
						stop = goRepeat(t, h.URL(), "repeat")
					case "nodejs":
						stop = nodejs(t, h.URL(), "repeat", repeat).kill
					case "noflo":
						stop = noflo(t, h.URL(), "repeat", "core/Repeat").kill
					}
					within(t, "the announcement of "+library, func() bool { return lives(t, announced) == i+1 })
					h.send(t, "repeat.IN", strconv.Itoa(i+1)) // noflo takes 0 for nothing
					out.await(t, strconv.Itoa(i+1))
					stop()
				}
			})
		}
	}
}

// lives counts the lives of participants that have announced themselves.
func lives(t *testing.T, announced *heard) int {
	t.Helper()
	ids := map[string]bool{}
	for _, body := range announced.all() {
		def, err := discovery.Parse([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		ids[def.ID] = true
	}
	return len(ids)
}
