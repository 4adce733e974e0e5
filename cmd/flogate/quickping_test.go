package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestPingTellsAgainAndAgain: the method and the id are those that were asked for, and a deaf ear is said once.
func TestPingTellsAgainAndAgain(t *testing.T) {
	t.Setenv("MSGFLO_PING_INTERVAL", "0.01")
	t.Setenv("MSGFLO_PING_METHOD", "get")
	heard := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		select {
		case heard <- r.Method + " " + r.URL.Path:
		default:
		}
	}))
	defer server.Close()
	t.Setenv("MSGFLO_PING_URL", strings.Replace(server.URL, "http://", "http://me:sesame99@", 1)+"/runtimes/$RUNTIME_ID")
	var p ping
	if pinging, err := p.complete("4711"); !pinging || err != nil {
		t.Fatalf("pinging is %t: %v", pinging, err)
	}
	var said strings.Builder
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	running.Go(func() { p.run(ctx, slog.New(slog.NewTextHandler(&said, nil))) })
	for range 3 {
		select {
		case got := <-heard:
			if got != "GET /runtimes/4711" {
				t.Errorf("heard %q", got)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is heard")
		}
	}
	stop()
	running.Wait()
	if n := strings.Count(said.String(), "502 Bad Gateway"); n != 1 || strings.Contains(said.String(), "sesame99") {
		t.Errorf("said:\n%s", said.String())
	}
}

func TestPingIsOffUnlessAskedFor(t *testing.T) {
	var p ping
	if pinging, err := p.complete("4711"); pinging || err != nil {
		t.Errorf("pinging is %t: %v", pinging, err)
	}
}

func TestPingWithoutAnIDDoesNotShowAPassword(t *testing.T) {
	p := ping{url: "https://me:sesame99@example.org/" + runtimeMark, interval: 1}
	_, err := p.complete("")
	if err == nil || strings.Contains(err.Error(), "sesame99") {
		t.Errorf("the error is %v", err)
	}
}
