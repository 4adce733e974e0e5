// Package e2e runs the program that users run, with real brokers, and kills what can be killed.
package e2e

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/flogate/flogate/test/gateway"
)

func TestMain(m *testing.M) {
	// Most of the time is spent waiting: for a slow sink, for a participant to be missed.
	const waiting = 2
	if err := flag.Set("test.parallel", strconv.Itoa(waiting*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	os.Exit(gateway.Main(m))
}
