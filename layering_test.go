package flogate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/flogate/flogate/"

// A layer is a package's place: it may import our packages of lower levels,
// unless only names the ones it may, and the outside libraries listed. The
// standard library is free.
type layer struct {
	level   int
	only    []string
	outside []string
}

// Outside libraries, by what they are for. A path stands for what is below it.
var (
	grpc     = []string{"google.golang.org/grpc", "google.golang.org/protobuf"}
	goPlugin = []string{"github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog", "google.golang.org/grpc"}
	hcl      = []string{"github.com/hashicorp/hcl/v2", "github.com/zclconf/go-cty"}
	yaml     = []string{"github.com/goccy/go-yaml"}
	limits   = []string{"golang.org/x/sync", "golang.org/x/time"}
	watching = []string{"github.com/fsnotify/fsnotify"} // components are files that people edit while the gateway runs
	terminal = []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/fsnotify/fsnotify", "golang.org/x/term"}
	metrics  = []string{"github.com/prometheus/client_golang"}
	paho     = []string{"github.com/eclipse/paho.mqtt.golang"}
	amqp     = []string{"github.com/rabbitmq/amqp091-go"}
	nats     = []string{"github.com/nats-io/nats.go", "github.com/nats-io/nkeys"}
	embedded = []string{"github.com/nats-io/nats-server/v2"}
)

var (
	// What a third party's plugin could import: ours import no more.
	forPlugins      = []string{"core/transport", "core/pluginmain", "core/coalesce"}
	forParticipants = []string{"core/transport", "core/broker", "core/discovery", "plugins/mqtt", "plugins/amqp", "plugins/nats"}
	// What sessions to runtimes see of the core, which in turn sees nothing of
	// them: the gateway carries messages with no client in the world.
	forForwarding = []string{"core/graph", "core/transport", "forwarding", "forwarding/fbp"}
)

// tests is above everything that ships, which therefore cannot import it.
const tests = 9

// layers places every package. A package that is not here fails the test, so
// that a new one is a decision that somebody sees.
var layers = map[string]layer{
	"core/transport":  {level: 0},
	"core/coalesce":   {level: 0},
	"core/atomicfile": {level: 0},
	"forwarding/fbp":  {level: 0},
	// Knows of nothing but itself and the network.
	"forwarding/mdns": {level: 0, only: []string{}, outside: []string{"golang.org/x/net"}},

	"core/graph":                 {level: 1},
	"core/deadletter":            {level: 1},
	"core/process":               {level: 1},
	"core/supervise":             {level: 1},
	"proto/flogate/transport/v1": {level: 1, outside: grpc},

	"core/wire":                    {level: 2, outside: grpc},
	"core/broker":                  {level: 2, outside: limits},
	"core/desk":                    {level: 2},
	"core/route":                   {level: 2},
	"core/transport/transporttest": {level: 2, outside: []string{"github.com/google/go-cmp", "go.uber.org/goleak"}},
	"forwarding/fbp/fbptest":       {level: 2, only: forForwarding},

	"core/bridge":     {level: 3, outside: limits},
	"core/roundrobin": {level: 3},
	"core/pluginmain": {level: 3, outside: goPlugin},
	"core/config":     {level: 3, outside: slices.Concat(hcl, yaml)},
	"core/library":    {level: 3, outside: slices.Concat(yaml, limits, watching)},
	"forwarding":      {level: 3, only: forForwarding},

	"core/network":           {level: 4, outside: limits},
	"core/plugin":            {level: 4, outside: slices.Concat(goPlugin, limits)}, // shares the handshake with pluginmain
	"core/discovery":         {level: 4, outside: limits},
	"core/admin":             {level: 4, outside: metrics},
	"core/embedded":          {level: 4, outside: embedded},
	"web":                    {level: 4},
	"forwarding/coordinator": {level: 4, only: forForwarding},
	"forwarding/wslink":      {level: 4, only: forForwarding, outside: []string{"github.com/coder/websocket"}},
	"forwarding/queuelink":   {level: 4, only: forForwarding},
	"plugins/mqtt":           {level: 4, only: forPlugins, outside: paho},
	"plugins/amqp":           {level: 4, only: forPlugins, outside: amqp},
	"plugins/nats":           {level: 4, only: forPlugins, outside: nats},

	"core/roster": {level: 5},

	// For other people's programs: it sees what they would have to see.
	"participant": {level: 5, only: forParticipants},

	"cmd/flogate": {level: 6, outside: slices.Concat(terminal, limits)},

	"configs":          {level: tests},
	"test/brokers":     {level: tests},
	"test/brokers/run": {level: tests + 1},
	"test/report":      {level: tests},
	"test/gateway":     {level: tests + 1},
	"test/e2e":         {level: tests + 2, outside: slices.Concat(paho, amqp, nats)},
	"test/bench":       {level: tests + 2, outside: slices.Concat(paho, amqp, nats)},
	"test/peers":       {level: tests + 2, outside: slices.Concat(paho, amqp, nats, grpc)},
}

// onlyImporter names packages that one other package stands in front of.
var onlyImporter = map[string]string{
	"proto/flogate/transport/v1": "core/wire",
}

// find returns the layer of a package; test/peers stands for what is below it.
func find(pkg string) (layer, bool) {
	if strings.HasPrefix(pkg, "test/peers/") {
		pkg = "test/peers"
	}
	l, ok := layers[pkg]
	return l, ok
}

// faults says what is wrong with pkg's imports.
func faults(pkg string, imports []string) []string {
	l, ok := find(pkg)
	if !ok {
		return []string{pkg + " has no place in the table"}
	}
	var found []string
	fault := func(format string, args ...any) {
		found = append(found, pkg+" imports "+fmt.Sprintf(format, args...))
	}
	for _, path := range imports {
		own, isOwn := strings.CutPrefix(path, module)
		first, _, _ := strings.Cut(path, "/")
		switch {
		case isOwn:
			other, ok := find(own)
			switch by := onlyImporter[own]; {
			case !ok:
				fault("%s, which has no place in the table", own)
			case strings.HasPrefix(pkg, "core/") && strings.HasPrefix(own+"/", "forwarding/"):
				fault("%s, of which core must know nothing", own)
			case l.only != nil && !slices.Contains(l.only, own):
				fault("%s, but may import only %s", own, strings.Join(l.only, ", "))
			case other.level >= l.level:
				fault("%s of level %d, and is of level %d itself", own, other.level, l.level)
			case by != "" && by != pkg:
				fault("%s, as only %s may", own, by)
			}
		case strings.Contains(first, "."): // no standard library path has one there
			if !slices.ContainsFunc(l.outside, func(lib string) bool {
				return path == lib || strings.HasPrefix(path, lib+"/")
			}) {
				fault("%s, which is not among its outside libraries", path)
			}
		}
	}
	return found
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for packages := json.NewDecoder(stdout); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		err := packages.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pkg, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok {
			continue // this very package
		}
		seen++
		for _, f := range faults(pkg, p.Imports) {
			t.Error(f)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	if seen == 0 {
		t.Fatal("go list has listed nothing")
	}
}

func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct {
		pkg, path string
		want      []string
	}{
		{"core/bridge", module + "core/transport", nil},
		{"core/bridge", "log/slog", nil},
		{"plugins/mqtt", "github.com/eclipse/paho.mqtt.golang/packets", nil},
		{"core/new", "fmt", []string{"core/new has no place in the table"}},
		{"core/bridge", module + "core/new", []string{"core/bridge imports core/new, which has no place in the table"}},
		{"core/bridge", module + "core/network", []string{"core/bridge imports core/network of level 4, and is of level 3 itself"}},
		{"core/bridge", module + "core/config", []string{"core/bridge imports core/config of level 3, and is of level 3 itself"}},
		{"core/network", module + "forwarding", []string{"core/network imports forwarding, of which core must know nothing"}},
		{"core/network", module + "forwarding/fbp", []string{"core/network imports forwarding/fbp, of which core must know nothing"}},
		{"core/bridge", module + "proto/flogate/transport/v1", []string{"core/bridge imports proto/flogate/transport/v1, as only core/wire may"}},
		{"plugins/mqtt", module + "core/broker", []string{"plugins/mqtt imports core/broker, but may import only core/transport, core/pluginmain, core/coalesce"}},
		{"cmd/flogate", module + "test/brokers", []string{"cmd/flogate imports test/brokers of level 9, and is of level 6 itself"}},
		{"core/graph", "github.com/hashicorp/hcl/v2", []string{"core/graph imports github.com/hashicorp/hcl/v2, which is not among its outside libraries"}},
		{"plugins/mqtt", "github.com/eclipse/paho.mqtt.golangx", []string{"plugins/mqtt imports github.com/eclipse/paho.mqtt.golangx, which is not among its outside libraries"}},
	} {
		if diff := cmp.Diff(c.want, faults(c.pkg, []string{c.path})); diff != "" {
			t.Errorf("%s imports %s: %s", c.pkg, c.path, diff)
		}
	}
}
