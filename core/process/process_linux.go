package process

import "syscall"

// attributes kills the child with its parent. SIGKILL and not SIGTERM: the parent was killed, so its successor is about to
// start, and needs the ports and folders that the child holds.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
