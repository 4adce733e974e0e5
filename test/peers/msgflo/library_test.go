//go:build peers

package msgflo

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/test/brokers"
	"github.com/flogate/flogate/test/gateway"
)

// TestProjectRunsByItself gives the gateway a project of MsgFlo's as it is, with its package.json, and nobody who starts
// participants. They end with the gateway, also when it is killed.
func TestProjectRunsByItself(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := open(t, kind)
			out := h.hear(t, "done.OUT")
			g := gateway.Open(t, site(`
'GREETING' -> KEY env(core/ReadEnv) OUT -> IN work(peers/Choosy) OUT -> IN done(Repeat)
`, h.block("house"), library(t)))
			g.AwaitFlowing()
			out.await(t, `"hello"`)
			announced(t, g, "env", 1, 3)
			h.send(t, "env.KEY", `"MARK"`)
			out.await(t, `"mark"`)
			if n := out.count(`"hello"`); n != 1 {
				t.Errorf("%d initial packets have come", n)
			}

			// One that crashes is started again, and gets its initial packet.
			s := g.AwaitFlowing()
			if err := syscall.Kill(pid(t, s, "env"), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			within(t, "the initial packet of the next life", func() bool { return out.count(`"hello"`) == 2 })

			s = g.Await("all to be there again", func(s admin.Status) bool {
				for _, p := range s.Participants {
					if p.PID == 0 {
						return false
					}
				}
				return true
			})
			g.Kill()
			for _, role := range []string{"env", "work", "done"} {
				p := pid(t, s, role)
				within(t, role+" to end with the gateway", func() bool { return syscall.Kill(p, 0) != nil })
			}
			if !strings.Contains(g.Log(), "done connected to") {
				t.Error("what participants print is not in the log")
			}
		})
	}
}

// TestProjectOutlivesItsBroker restarts the broker. Participants on AMQP crash and are started again, those on MQTT connect again;
// whatever they do, in the end everything flows.
func TestProjectOutlivesItsBroker(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := brokers.Mosquitto
			if kind == "amqp" {
				b = brokers.OwnRabbitMQ
			}
			h := own(t, b(t))
			g := gateway.Open(t, site("'GREETING' -> KEY env(core/ReadEnv) OUT -> IN work(peers/Choosy) OUT -> IN done(Repeat)", h.block("house"), library(t)))
			out := h.hear(t, "done.OUT")
			out.await(t, `"hello"`)
			h.restart(t)
			out = h.hear(t, "done.OUT")
			for deadline := time.Now().Add(2 * time.Minute); out.count(`"mark"`) == 0; time.Sleep(200 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("nothing flows any more")
				}
				h.send(t, "env.KEY", `"MARK"`)
			}
			g.AwaitFlowing()
		})
	}
}

// library is the block of this folder's package.json.
func library(t *testing.T) string {
	t.Helper()
	install(t)
	project, err := filepath.Abs("package.json")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("library \"peers\" {\n  file = %q\n  env  = { GREETING = \"hello\", MARK = \"mark\", MSGFLO_DISCOVERY_PERIOD = \"2\" }\n}\n", project)
}

func pid(t *testing.T, s admin.Status, role string) int {
	t.Helper()
	for _, p := range s.Participants {
		if p.Role == role && p.PID != 0 {
			return p.PID
		}
	}
	t.Fatalf("%s does not run: %+v", role, s.Participants)
	return 0
}
