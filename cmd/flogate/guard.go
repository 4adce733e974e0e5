package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/flogate/flogate/core/process"
)

// guardCommand is the process that ends what participants have started when the gateway is killed.
func (a *app) guardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard",
		Short:  "End what participants have started when the gateway is killed",
		Hidden: true,
		Args:   noArgs,
		RunE: func(*cobra.Command, []string) error {
			// A service manager signals every process of a service; this one is needed until the gateway has ended.
			signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			process.KeepWatch(a.stdin)
			return nil
		},
	}
}

// startGuard starts this program as a guard.
func startGuard() (*process.Guard, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	cmd := exec.Command(self, "guard") //nolint:noctx // it outlives everything
	cmd.Env = []string{"GOMAXPROCS=1"} // and nothing of ours
	return process.StartGuard(cmd)
}
