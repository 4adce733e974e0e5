//go:build !linux

package embedded

import "os/exec"

// dieWithParent needs a kernel that can: elsewhere a killed gateway leaves its
// broker running, and the next one says who holds the folder.
func dieWithParent(*exec.Cmd) {}
