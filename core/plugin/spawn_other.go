//go:build unix && !linux

package plugin

import "syscall"

// sysProcAttr puts the plugin into a process group of its own, so that a key that a person presses does not end it before
// the gateway has drained.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// selfPath is empty: this program's own file can only be found by its name.
const selfPath = ""
