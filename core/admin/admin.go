// Package admin serves what operators ask a running gateway: /metrics for Prometheus, /healthz and /readyz for whoever
// watches over processes, and /status as JSON, which `flogate status` prints.
//
// It asks one function for a [Status] and shows it; it changes nothing, and holds nothing.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Status is how a gateway is doing. It is an interface to the outside: fields are added, never renamed.
type Status struct {
	Site    string    `json:"site"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Reload says why the last change of the site file was not taken over; empty if it was.
	Reload       string        `json:"reload_error,omitempty"`
	Edges        []Edge        `json:"edges"`
	Brokers      []Broker      `json:"brokers"`
	Plugins      []Plugin      `json:"plugins"`
	Participants []Participant `json:"participants"`
	// Discovery counts announcements, by broker.
	Discovery []Discovery `json:"discovery"`
}

// Edge is how an edge is doing.
type Edge struct {
	ID        string    `json:"id"`
	Graph     string    `json:"graph"`
	State     string    `json:"state"` // pending, flowing, blocked, broken or draining
	Reason    string    `json:"reason,omitempty"`
	Since     time.Time `json:"since"`
	Source    Place     `json:"source,omitzero"` // absent while the edge is pending
	Sink      Place     `json:"sink,omitzero"`
	Guarantee string    `json:"guarantee,omitempty"`
	Weakness  string    `json:"weakness,omitempty"`
	Warning   string    `json:"warning,omitempty"`

	Messages      uint64  `json:"messages"`
	Bytes         uint64  `json:"bytes"`
	Rate          float64 `json:"messages_per_second"`
	InFlight      uint64  `json:"in_flight"`
	OldestSeconds float64 `json:"oldest_seconds"`
	Redelivered   uint64  `json:"redelivered"`
	DeadLetters   uint64  `json:"dead_letters"`
	Rejected      uint64  `json:"rejected"`
}

// Place is an address on a broker.
type Place struct {
	Broker  string `json:"broker"`
	Address string `json:"address"`
}

// Broker is how a broker is doing.
type Broker struct {
	ID       string    `json:"id"`
	State    string    `json:"state"` // connecting, connected, blocked or stopped
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
	Connects int       `json:"connects"`
	Product  string    `json:"product,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
}

// Plugin is how a process that belongs to the gateway is doing: a plugin, or the embedded broker.
type Plugin struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
	PID      int       `json:"pid,omitempty"`
	Restarts int       `json:"restarts"`
	Up       bool      `json:"up"`
}

// Participant is how a role is doing: a node of a graph, or somebody whom no graph has.
type Participant struct {
	Role      string `json:"role"`
	Component string `json:"component,omitempty"`
	Label     string `json:"label,omitempty"`
	Icon      string `json:"icon,omitempty"`
	// State is present, absent, starting, running or failed.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// Warning says what looks wrong.
	Warning string    `json:"warning,omitempty"`
	Since   time.Time `json:"since"`
	// From says who has told of it: site, library, announced, or graph, which only names it.
	From    string `json:"from"`
	InGraph bool   `json:"in_graph"`
	// Started: the gateway has started a program for it.
	Started  bool `json:"started,omitempty"`
	PID      int  `json:"pid,omitempty"`
	Restarts int  `json:"restarts"`
	// Announced are those who have announced that they play the role, the earliest first.
	Announced []Announced `json:"announced"`
	Inports   []Port      `json:"inports"`
	Outports  []Port      `json:"outports"`
}

// Announced is a participant that has announced itself.
type Announced struct {
	ID          string    `json:"id"`
	Incarnation uint64    `json:"incarnation"`
	First       time.Time `json:"first"`
	Last        time.Time `json:"last"`
	// Type and Version are those of the FBP runtime inside, if there is one.
	Type    string     `json:"type,omitempty"`
	Version string     `json:"version,omitempty"`
	On      []Presence `json:"on"`
}

// Presence is where a participant has announced itself.
type Presence struct {
	Broker  string    `json:"broker"`
	Address string    `json:"address"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	// LimitSeconds is after how long a silence it is gone from there; 0 is never.
	LimitSeconds float64 `json:"limit_seconds"`
}

// Port is a port of a participant, with its place on a broker.
type Port struct {
	Name        string `json:"name"`
	Type        string `json:"type,omitempty"`
	Schema      string `json:"schema,omitempty"`
	Description string `json:"description,omitempty"`
	Hidden      bool   `json:"hidden,omitempty"`
	Place
}

// Discovery counts announcements on a broker.
type Discovery struct {
	Broker   string `json:"broker"`
	Messages uint64 `json:"messages"`
	// Repeated said what was known already.
	Repeated uint64 `json:"repeated"`
	// Malformed could not be read.
	Malformed uint64 `json:"malformed"`
	// Dropped came when there was no room for more participants.
	Dropped uint64 `json:"dropped"`
}

// Ready says whether everything that should run does, and if not, why.
func (s Status) Ready() (bool, []string) {
	var reasons []string
	for _, b := range s.Brokers {
		if b.State == "connecting" || b.State == "stopped" {
			reasons = append(reasons, fmt.Sprintf("broker %s is %s: %s", b.ID, b.State, b.Reason))
		}
	}
	for _, e := range s.Edges {
		if e.State == "broken" {
			reasons = append(reasons, fmt.Sprintf("edge %s is broken: %s", e.ID, e.Reason))
		}
	}
	for _, p := range s.Plugins {
		if !p.Up {
			reasons = append(reasons, fmt.Sprintf("plugin %s is %s: %s", p.Name, p.State, p.Reason))
		}
	}
	return len(reasons) == 0, reasons
}

// Handler returns the pages. status is called once for each request that needs it, and must not block for long.
func Handler(status func() Status) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collector{status},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok") // that we answer is the answer
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready, reasons := status().Ready()
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
			for _, r := range reasons {
				_, _ = fmt.Fprintln(w, r)
			}
			return
		}
		_, _ = fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false) // an edge is "a.out -> b.in"
		_ = enc.Encode(status()) // a client that went away is its own affair
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "flogate\n\n/status   how everything is doing, as JSON\n/metrics  for Prometheus\n"+
			"/healthz  the process answers\n/readyz   everything that should run does")
	})
	return mux
}

// Serve serves h on l until ctx ends, and closes l. It gives requests that are under way a second to finish.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h,
		// Slow clients must not hold connections for ever.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("admin: %w", err)
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := srv.Shutdown(closing); err != nil {
		_ = srv.Close() // what has not finished by now is cut off
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}
