// Package e2e runs the program that users run, with real brokers, and kills what can be killed.
package e2e

import (
	"os"
	"testing"

	"github.com/flogate/flogate/test/gateway"
)

func TestMain(m *testing.M) { os.Exit(gateway.Main(m)) }
