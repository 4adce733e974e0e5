//go:build peers

package msgflo

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/test/gateway"
)

// TestProjectRunsByItself gives the gateway a project of MsgFlo's as it is, with its package.json, and nobody who starts
// participants. They end with the gateway, also when it is killed.
func TestProjectRunsByItself(t *testing.T) {
	install(t)
	project, err := filepath.Abs("package.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := open(t, kind)
			out := h.hear(t, "done.OUT")
			library := fmt.Sprintf("library \"peers\" {\n  file = %q\n  env  = { GREETING = \"hello\", MARK = \"mark\", MSGFLO_DISCOVERY_PERIOD = \"2\" }\n}\n", project)
			g := gateway.Open(t, site(`
'GREETING' -> KEY env(core/ReadEnv) OUT -> IN work(peers/Choosy) OUT -> IN done(Repeat)
`, h.block("house"), library))
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
