package coalesce

import "syscall"

// quickAck returns a function that makes the kernel acknowledge at once what has come, or nil. The kernel forgets that it
// was told after a while, so it has to be told again and again.
func quickAck(raw syscall.RawConn) func() {
	if raw == nil {
		return nil
	}
	set := func(fd uintptr) {
		// What cannot be done here (a socket that is not TCP) is an optimisation less.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	}
	return func() { _ = raw.Control(set) }
}
