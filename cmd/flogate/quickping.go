package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// ping tells somebody over HTTP, again and again, that the gateway is there.
type ping struct {
	url, method string
	interval    seconds
}

// flowhub is where MsgFlo pings.
const flowhub = "https://api.flowhub.io/runtimes/" + runtimeMark

// runtimeMark stands for the runtime's id in the URL of a ping.
const runtimeMark = "$RUNTIME_ID"

func (p *ping) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.url, "ping-url", "", "a URL to ask for again and again, as a sign of life; "+runtimeMark+" stands for the runtime id (default: $MSGFLO_PING_URL or "+flowhub+")")
	f.Var(&p.interval, "ping-interval", "how often, in seconds; 0 for never (default: $MSGFLO_PING_INTERVAL or 0)")
	f.StringVar(&p.method, "ping-method", "", "GET or POST (default: $MSGFLO_PING_METHOD or POST)")
	_ = cmd.RegisterFlagCompletionFunc("ping-method", words("GET", "POST")) // the flag exists
	for _, name := range []string{"ping-url", "ping-interval"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// complete fills in what is left to the environment, and says whether anybody shall be told.
func (p *ping) complete(runtimeID string) (bool, error) {
	if text := os.Getenv("MSGFLO_PING_INTERVAL"); p.interval == 0 && text != "" {
		if err := p.interval.Set(text); err != nil {
			return false, usagef("MSGFLO_PING_INTERVAL is %q: %w", text, err)
		}
	}
	if p.interval == 0 {
		if p.url != "" {
			return false, usagef("--ping-interval is missing: how often --ping-url is asked for, in seconds")
		}
		return false, nil
	}
	p.method = strings.ToUpper(cmp.Or(p.method, os.Getenv("MSGFLO_PING_METHOD"), http.MethodPost))
	if p.method != http.MethodGet && p.method != http.MethodPost {
		return false, usagef("--ping-method is %q: it is GET or POST", p.method)
	}
	p.url = cmp.Or(p.url, os.Getenv("MSGFLO_PING_URL"), flowhub)
	if runtimeID == "" && strings.Contains(p.url, runtimeMark) {
		return false, usagef("--runtime-id is missing: it is a part of --ping-url, %s", redactURL(p.url))
	}
	p.url = strings.ReplaceAll(p.url, runtimeMark, runtimeID)
	if u, err := url.Parse(p.url); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return false, usagef("--ping-url is %q: it is a URL like https://example.org/alive", redactURL(p.url))
	}
	return true, nil
}

// run pings until ctx ends. That nobody hears it is said once, and so is that somebody does again.
func (p *ping) run(ctx context.Context, log *slog.Logger) {
	log = log.With("url", redactURL(p.url))
	failing := false
	tick := time.NewTicker(time.Duration(p.interval))
	defer tick.Stop()
	for {
		switch err := p.once(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			failing = true
			log.Warn("nobody hears that the gateway is there", "error", err)
		case err == nil && failing:
			failing = false
			log.Info("somebody hears again that the gateway is there")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *ping) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, p.method, p.url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if asked := (*url.Error)(nil); errors.As(err, &asked) {
		err = asked.Err // the URL is said already, without its password
	}
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the answer is %s", resp.Status)
	}
	return nil
}
