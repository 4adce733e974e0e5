// Package gateway runs the flogate that users run, for tests that may kill it:
//
//	func TestMain(m *testing.M) { os.Exit(gateway.Main(m)) }
//
//	g := gateway.Open(t, site)
//	g.AwaitFlowing()
//	g.Kill()
//	g.Start()
//
// This package is for tests; nothing that ships may import it.
package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/test/brokers"
)

// folder has what Main removes: the built flogate.
var folder string

// Main runs the tests of a program that uses this package, and returns their exit code.
func Main(m *testing.M) int {
	var err error
	if folder, err = os.MkdirTemp("", "flogate-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	return m.Run()
}

// built is how building flogate went; it is built when it is first needed.
var built = sync.OnceValue(func() error {
	build := exec.Command("go", "build", "-o", program(), "github.com/flogate/flogate/cmd/flogate")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
})

func program() string { return filepath.Join(folder, "flogate") }

// Program is the path of the built flogate.
func Program(t testing.TB) string {
	t.Helper()
	if folder == "" {
		t.Fatal("TestMain does not call gateway.Main")
	}
	if err := built(); err != nil {
		t.Fatal(err)
	}
	return program()
}

// Run runs flogate with arguments and returns what it has printed; the test fails if flogate does.
func Run(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, Program(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("flogate %q: %v\n%s%s", args, err, &out, &errs)
	}
	return out.String()
}

// Gateway is a running flogate, which a test may kill and start again. Its methods fail the test on errors, and are for the
// test's own goroutine, except Status.
type Gateway struct {
	t      testing.TB
	site   string
	admin  string
	cmd    *exec.Cmd
	output *buffer
}

// buffer keeps the end of what is written to it.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf.Len() > 1<<20 {
		b.buf.Next(b.buf.Len() / 2)
	}
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Open writes a site file and starts the gateway on it. It ends with the test.
func Open(t testing.TB, hcl string) *Gateway {
	t.Helper()
	g := New(t, hcl)
	g.Start()
	return g
}

// New is Open without starting the gateway. Files that the site needs can be put beside it before Start.
func New(t testing.TB, hcl string) *Gateway {
	t.Helper()
	g := &Gateway{t: t, admin: brokers.FreeAddress(t), site: filepath.Join(t.TempDir(), "site.hcl"), output: &buffer{}}
	g.Write(hcl)
	t.Cleanup(func() {
		g.Kill()
		if t.Failed() {
			out := g.Log()
			t.Logf("the gateway's last words:\n%s", out[max(0, len(out)-6000):])
		}
	})
	return g
}

// Write replaces the site file, which may not have a listen block: it is added.
func (g *Gateway) Write(hcl string) {
	g.t.Helper()
	hcl = fmt.Sprintf("listen {\n  admin = %q\n}\n", g.admin) + hcl
	if err := os.WriteFile(g.site, []byte(hcl), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// Site is the path of the site file.
func (g *Gateway) Site() string { return g.site }

// Admin is the address of the gateway's HTTP server, host:port.
func (g *Gateway) Admin() string { return g.admin }

// PID is the gateway's process id; it has to run.
func (g *Gateway) PID() int { return g.cmd.Process.Pid }

// Log is the end of what the gateway has printed, in all its lives.
func (g *Gateway) Log() string { return g.output.String() }

// Start starts the gateway after New, Kill or Stop.
func (g *Gateway) Start() {
	g.t.Helper()
	g.cmd = exec.Command(Program(g.t), "--config", g.site)
	g.cmd.Stdout, g.cmd.Stderr = g.output, g.output
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
}

// Kill ends the gateway with SIGKILL, if it runs.
func (g *Gateway) Kill() {
	if g.cmd != nil {
		_ = g.cmd.Process.Kill() // it may have ended
		_ = g.cmd.Wait()
		g.cmd = nil
	}
}

// Stop ends the gateway with SIGTERM and wants it to end well.
func (g *Gateway) Stop() {
	g.t.Helper()
	g.signal(syscall.SIGTERM)
	err := g.cmd.Wait()
	g.cmd = nil
	if err != nil {
		g.t.Errorf("the gateway ended with %v", err)
	}
}

// Reload has the gateway read its site file again.
func (g *Gateway) Reload() {
	g.t.Helper()
	g.signal(syscall.SIGHUP)
}

func (g *Gateway) signal(sig syscall.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil {
		g.t.Fatal(err)
	}
}

// Status asks the gateway how it is; an error is that it does not answer.
func (g *Gateway) Status() (admin.Status, error) {
	var s admin.Status
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.admin+"/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer func() { _ = resp.Body.Close() }()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// Await waits until the status is as wanted. A gateway that does not answer yet is waited for.
func (g *Gateway) Await(what string, done func(admin.Status) bool) admin.Status {
	g.t.Helper()
	var last admin.Status
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if s, err := g.Status(); err == nil {
			if last = s; done(s) {
				return s
			}
		}
	}
	g.t.Fatalf("waited in vain for %s; the last status was %+v", what, last)
	return last
}

// AwaitFlowing waits until there are edges and every edge flows.
func (g *Gateway) AwaitFlowing() admin.Status {
	g.t.Helper()
	return g.Await("all edges to flow", func(s admin.Status) bool {
		for _, e := range s.Edges {
			if e.State != "flowing" {
				return false
			}
		}
		return len(s.Edges) > 0
	})
}
