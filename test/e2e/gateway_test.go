// Package e2e runs the program that users run, with real brokers, and kills what can be killed.
package e2e

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

// program is the built flogate.
var program string //nolint:gochecknoglobals // made once for all tests, by TestMain

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "flogate-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		program = filepath.Join(dir, "flogate")
		build := exec.Command("go", "build", "-o", program, "github.com/flogate/flogate/cmd/flogate")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s\n%v\n", out, err)
			return 1
		}
		return m.Run()
	}())
}

// gateway is a running flogate, which a test may kill and start again.
type gateway struct {
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

// newGateway writes a site file, adding the listen block, and starts the gateway on it.
func newGateway(t testing.TB, hcl string) *gateway {
	t.Helper()
	g := &gateway{t: t, admin: brokers.FreeAddress(t), site: filepath.Join(t.TempDir(), "site.hcl"), output: &buffer{}}
	g.write(hcl)
	g.start()
	t.Cleanup(func() {
		g.kill()
		if t.Failed() {
			out := g.output.String()
			t.Logf("the gateway's last words:\n%s", out[max(0, len(out)-6000):])
		}
	})
	return g
}

func (g *gateway) write(hcl string) {
	g.t.Helper()
	hcl = fmt.Sprintf("listen {\n  admin = %q\n}\n", g.admin) + hcl
	if err := os.WriteFile(g.site, []byte(hcl), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) start() {
	g.t.Helper()
	g.cmd = exec.Command(program, "--config", g.site)
	g.cmd.Stdout, g.cmd.Stderr = g.output, g.output
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
}

// kill ends the gateway with SIGKILL, if it runs.
func (g *gateway) kill() {
	if g.cmd != nil {
		_ = g.cmd.Process.Kill() // it may have ended
		_ = g.cmd.Wait()
		g.cmd = nil
	}
}

// stop ends the gateway with SIGTERM and wants it to end well.
func (g *gateway) stop() {
	g.t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
	err := g.cmd.Wait()
	g.cmd = nil
	if err != nil {
		g.t.Errorf("the gateway ended with %v", err)
	}
}

func (g *gateway) status() (admin.Status, error) {
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

// await waits until the status is as wanted. A gateway that does not answer yet is waited for.
func (g *gateway) await(what string, done func(admin.Status) bool) admin.Status {
	g.t.Helper()
	var last admin.Status
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if s, err := g.status(); err == nil {
			if last = s; done(s) {
				return s
			}
		}
	}
	g.t.Fatalf("waited in vain for %s; the last status was %+v", what, last)
	return last
}

// flowing waits until every edge flows.
func (g *gateway) flowing() {
	g.t.Helper()
	g.await("all edges to flow", func(s admin.Status) bool {
		for _, e := range s.Edges {
			if e.State != "flowing" {
				return false
			}
		}
		return len(s.Edges) > 0
	})
}
