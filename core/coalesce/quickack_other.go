//go:build !linux

package coalesce

import "syscall"

// quickAck returns nil: there is no such option here.
func quickAck(syscall.RawConn) func() { return nil }
