//go:build unix && !linux

package process

import "syscall"

// attributes cannot tie the child's life to ours here: it has to notice by itself.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
