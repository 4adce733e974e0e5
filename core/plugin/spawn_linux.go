package plugin

import "syscall"

// sysProcAttr puts the plugin into a process group of its own, so that a key that a person presses does not end it before
// the gateway has drained, and has the kernel kill it when this process dies.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// selfPath is this program's own file, also when another has taken its place on the disk.
const selfPath = "/proc/self/exe"
