package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// full is a status with something of everything.
func full() Status {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Status{
		Site: "house", Version: "v1.2.3", Started: at, Reload: "site.hcl:1:1: error: Unsupported argument",
		Edges: []Edge{
			{
				ID: "a.out -> b.in", Graph: "main", State: "flowing", Since: at,
				Source: Place{"mqtt.house", "a/out"}, Sink: Place{"amqp.work", "b"}, Guarantee: "at-least-once",
				Messages: 10, Bytes: 1000, Rate: 1.5, InFlight: 2, OldestSeconds: 0.25, Redelivered: 3, DeadLetters: 4, Rejected: 5,
			},
			{ID: "a.out -> c.in", Graph: "main", State: "pending", Reason: "no participant c", Since: at},
		},
		Brokers: []Broker{
			{ID: "amqp.work", State: "blocked", Reason: "low on memory", Since: at, Connects: 2, Product: "RabbitMQ 4.0.1"},
			{ID: "mqtt.house", State: "connected", Since: at, Connects: 1, Warnings: []string{"may lose messages"}},
		},
		Plugins: []Plugin{
			{Name: "amqp", State: "ready", Since: at, PID: 11, Restarts: 1, Up: true},
			{Name: "mqtt", State: "ready", Since: at, PID: 12, Up: true},
		},
		Participants: []Participant{
			{
				Role: "a", Component: "demo/A", State: "present", Since: at, From: "site", InGraph: true, Started: true, PID: 13,
				Announced: []Announced{{
					ID: "a-1", Incarnation: 4, First: at, Last: at,
					On: []Presence{{Broker: "mqtt.local", Address: "fbp", First: at, Last: at, LimitSeconds: 600}},
				}},
				Inports: []Port{}, Outports: []Port{{Name: "out", Type: "any", Place: Place{"mqtt.local", "a/out"}}},
			},
			{Role: "c", State: "failed", Reason: "exit status 7", Since: at, From: "library", InGraph: true, Started: true, Restarts: 2},
			{Role: "z", State: "absent", Reason: "nobody has announced that it plays this role", Since: at, From: "graph", InGraph: true},
		},
		Discovery: []Discovery{{Broker: "mqtt.local", Messages: 7, Repeated: 4, Malformed: 2, Dropped: 1}},
	}
}

// get asks the handler for a page.
func get(t *testing.T, s Status, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(func() Status { return s }).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

// golden compares with a file in testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestMetricsAreTheOnesThatAlertsKnow: a name that goes, or means something else, breaks somebody's alert.
func TestMetricsAreTheOnesThatAlertsKnow(t *testing.T) {
	code, body := get(t, full(), http.MethodGet, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, body)
	}
	var ours strings.Builder
	for line := range strings.Lines(body) {
		if strings.Contains(line, "flogate_") {
			ours.WriteString(line)
		}
	}
	golden(t, "metrics.golden", ours.String())
}

// TestEveryDocumentedMetricExists keeps the table for operators and the program together.
func TestEveryDocumentedMetricExists(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, body := get(t, full(), http.MethodGet, "/metrics")
	var have []string
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "# TYPE flogate_"); ok {
			have = append(have, "flogate_"+strings.Fields(name)[0])
		}
	}
	if len(have) == 0 {
		t.Fatal("there are no metrics")
	}
	for _, name := range have {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("%s is not in docs/operating.md", name)
		}
	}
	// In code quotes: `flogate_edge_state{state="broken"}` counts by its name.
	for quoted := range strings.SplitSeq(string(page), "`") {
		name, _, _ := strings.Cut(quoted, "{")
		if fields := strings.Fields(name); len(fields) > 0 && strings.HasPrefix(fields[0], "flogate_") && !slices.Contains(have, fields[0]) {
			t.Errorf("docs/operating.md has %s, which there is not", fields[0])
		}
	}
}

func TestStatusIsTheInterfaceOfPrograms(t *testing.T) {
	code, body := get(t, full(), http.MethodGet, "/status")
	if code != http.StatusOK {
		t.Fatalf("%d: %s", code, body)
	}
	golden(t, "status.golden.json", body)
	var back Status
	if err := json.Unmarshal([]byte(body), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full(), back); diff != "" {
		t.Errorf("it does not come back as it was (-want +got):\n%s", diff)
	}
}

func TestReadyzNamesWhatDoesNotRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Status)
		want   string // empty: ready
	}{
		{"everything runs", func(*Status) {}, ""},
		{"an edge that waits for a participant is no failure", func(s *Status) { s.Edges[0].State = "pending" }, ""},
		{"a blocked broker holds messages back and loses none", func(s *Status) { s.Brokers[0].State = "blocked" }, ""},
		{"a broken edge", func(s *Status) {
			s.Edges[0].State, s.Edges[0].Reason = "broken", "no such queue"
		}, "edge a.out -> b.in is broken: no such queue\n"},
		{"a broker that is away", func(s *Status) {
			s.Brokers[1].State, s.Brokers[1].Reason = "connecting", "connection refused"
		}, "broker mqtt.house is connecting: connection refused\n"},
		{"a plugin that crashes", func(s *Status) {
			s.Plugins[0].Up, s.Plugins[0].State, s.Plugins[0].Reason = false, "failed", "killed"
		}, "plugin amqp is failed: killed\n"},
		{"everything at once", func(s *Status) {
			s.Brokers[0].State, s.Brokers[0].Reason = "stopped", "gone"
			s.Plugins[1].Up, s.Plugins[1].State, s.Plugins[1].Reason = false, "waiting", "exit status 1"
		}, "broker amqp.work is stopped: gone\nplugin mqtt is waiting: exit status 1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := full()
			c.change(&s)
			code, body := get(t, s, http.MethodGet, "/readyz")
			wantCode, want := http.StatusServiceUnavailable, c.want
			if want == "" {
				wantCode, want = http.StatusOK, "ready\n"
			}
			if code != wantCode || body != want {
				t.Errorf("%d %q, want %d %q", code, body, wantCode, want)
			}
		})
	}
}

func TestHealthzAnswersWhateverTheStatus(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(func() Status { panic("asked for a status") }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	if w.Code != http.StatusOK || w.Body.String() != "ok\n" {
		t.Errorf("%d %q", w.Code, w.Body.String())
	}
}

func TestNothingCanBeChangedOverAdmin(t *testing.T) {
	for _, path := range []string{"/", "/status", "/metrics", "/healthz", "/readyz"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			if code, _ := get(t, full(), method, path); code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, code)
			}
		}
	}
	if code, _ := get(t, full(), http.MethodGet, "/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("/debug/pprof/: %d", code)
	}
	if code, body := get(t, full(), http.MethodGet, "/"); code != http.StatusOK || !strings.Contains(body, "/metrics") {
		t.Errorf("/: %d %q", code, body)
	}
}

func TestServeEndsWithItsContextAndLetsGoOfThePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, Handler(full), slog.New(slog.DiscardHandler)) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !bytes.Equal(body, []byte("ok\n")) {
		t.Fatalf("%q, %v", body, err)
	}
	// A client that is connected and says nothing holds nobody up.
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	again, err := net.Listen("tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("the port is still taken: %v", err)
	}
	_ = again.Close()
}

func TestServeSaysThatItsListenerFailed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := Serve(t.Context(), l, Handler(full), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no error")
	}
}
