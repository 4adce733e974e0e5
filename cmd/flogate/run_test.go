package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flogate/flogate/core/admin"
	"github.com/flogate/flogate/core/config"
	"github.com/flogate/flogate/core/plugin"
)

func site(dataDir string) *config.Site { return &config.Site{DataDir: dataDir} }

func TestTwoProcessesOfOneNameHaveTheirOwnMetrics(t *testing.T) {
	plugins := []admin.Plugin{{Name: "mqtt"}, {Name: "amqp"}, {Name: "mqtt"}, {Name: "mqtt"}}
	nameApart(plugins)
	want := []admin.Plugin{{Name: "mqtt"}, {Name: "amqp"}, {Name: "mqtt (2)"}, {Name: "mqtt (3)"}}
	if diff := cmp.Diff(want, plugins); diff != "" {
		t.Error(diff)
	}
}

func TestReplacedPluginIsConnectedAnew(t *testing.T) {
	e := plugin.Executable{Type: "mqtt", Path: "/plugins/flogate-transport-mqtt", Size: 7, Modified: time.Unix(1, 0)}
	version := brokerVersion(config.Broker{}, e)
	if again := brokerVersion(config.Broker{}, e); again != version {
		t.Error("the same plugin has another version")
	}
	for what, change := range map[string]func(*plugin.Executable){
		"size": func(e *plugin.Executable) { e.Size++ },
		"time": func(e *plugin.Executable) { e.Modified = e.Modified.Add(1) },
		"path": func(e *plugin.Executable) { e.Path += "2" },
	} {
		other := e
		change(&other)
		if brokerVersion(config.Broker{}, other) == version {
			t.Errorf("a plugin of another %s has the same version", what)
		}
	}
}
