//go:build !linux

package brokers

import "os/exec"

// dieWithParent needs a kernel that can: elsewhere a killed test leaves its
// brokers behind.
func dieWithParent(*exec.Cmd) {}
