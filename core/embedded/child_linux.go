package embedded

import (
	"os/exec"
	"syscall"
)

// dieWithParent kills the child with its parent. SIGKILL, not SIGTERM: the
// store survives it, and the parent's successor finds ports and folder free.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
