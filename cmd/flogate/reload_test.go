package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/discovery"
)

func TestWhoComesDoesNotWaitForASiteThatIsLoaded(t *testing.T) {
	dir := t.TempDir()
	// Nobody listens there, and nobody has to.
	text := `broker "mqtt" "house" { url = "mqtt://` + closedAddress(t) + `" }` + "\n"
	file := filepath.Join(dir, "site.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	source := siteFile(file)
	load, began := source.load, make(chan struct{})
	first := true
	source.load = func(ctx context.Context, log *slog.Logger) (*config.Site, *config.Diagnostics, error) {
		if first {
			first = false
			return load(ctx, log)
		}
		close(began)
		<-ctx.Done() // as if a plugin did not answer
		return nil, &config.Diagnostics{}, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	source.watch = func(_ context.Context, r *runner) {
		defer cancel()
		patience := time.After(20 * time.Second)
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Error(err)
			return
		}
		select {
		case <-began:
		case <-patience:
			t.Error("the site was not loaded again")
			return
		}
		def := discovery.Definition{ID: "a1", Role: "a", Component: "c"}
		if _, err := r.stage.registry.Seen(discovery.Place{Broker: "mqtt.house", Address: "fbp"}, def, time.Now()); err != nil {
			t.Error(err)
		}
		r.stage.poke()
		look := time.NewTicker(5 * time.Millisecond)
		defer look.Stop()
		for !slices.ContainsFunc(r.status().Participants, func(p admin.Participant) bool { return p.Role == "a" }) {
			select {
			case <-look.C:
			case <-patience:
				t.Error("nobody has looked who is there")
				return
			}
		}
	}
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	if err := a.runSite(ctx, source); err != nil {
		t.Error(err)
	}
}

// closedAddress is one at which nobody listens.
func closedAddress(t *testing.T) string {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
