package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/test/brokers"
	"github.com/flogate/flogate/test/gateway"
)

func TestPluginDroppedIntoTheFolderIsUsedAfterAReload(t *testing.T) {
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	house := brokers.Mosquitto(t)
	base := fmt.Sprintf(`site "e2e" {}
plugins {
  directory = %q
}
broker "mqtt" "house" {
  url = %q
}
participant "sensor" {
  component = "e2e/Sensor"
  broker    = broker.mqtt.house
  outport "out" {
    address = "sensor"
  }
}
`, folder, house.URL())
	g := gateway.Open(t, base+"graph \"main\" {\n  text = \"sensor(e2e/Sensor) OUT -> IN file(e2e/File)\"\n}\n")
	g.Await("the edge to be pending", func(s admin.Status) bool {
		return len(s.Edges) == 1 && s.Edges[0].State == "pending" && strings.Contains(s.Edges[0].Reason, "file")
	})

	target := filepath.Join(t.TempDir(), "out")
	more := base + fmt.Sprintf(`graph "main" {
  text = "sensor(e2e/Sensor) OUT -> IN file(e2e/File)"
}
broker "file" "disk" {
  %s
}
participant "file" {
  component = "e2e/File"
  broker    = broker.file.disk
  inport "in" {
    address = %q
  }
}
`, "directory = "+fmt.Sprintf("%q", filepath.Dir(target)), filepath.Base(target))

	// Without the plugin the new site is refused, and the old one stays in force.
	g.Write(more)
	g.Await("the reason", func(s admin.Status) bool { return strings.Contains(s.Reload, `"file"`) })

	build := exec.Command("go", "build", "-o", filepath.Join(folder, "flogate-transport-file"), ".")
	build.Dir = filepath.Join("..", "..", "examples", "transport-file")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v", out, err)
	}
	g.Reload()
	g.AwaitFlowing()
	gateway.Run(t, "send", "--broker", house.URL(), "--queue", "sensor", "--text", "21.5")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if got, err := os.ReadFile(target); err == nil && strings.Contains(string(got), "21.5") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing arrived through the plugin")
		}
	}
	g.Stop()
}
