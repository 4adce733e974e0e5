package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// PortTakenError says that a listener's port is taken, and by whom.
type PortTakenError struct {
	Listener string // "nats" or "mqtt"
	Addr     string
	PID      int // of the holder; 0 where it cannot be found out
}

// Error names the address and its holder.
func (e *PortTakenError) Error() string {
	by := "another process"
	if e.PID != 0 {
		by = processName(e.PID)
	}
	return fmt.Sprintf("embedded broker: the %s address %s is taken by %s", e.Listener, e.Addr, by)
}

// probe says whether addr can be listened on. It may change right after; the
// server's own error then has the less helpful text.
func probe(ctx context.Context, name, addr string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return &PortTakenError{Listener: name, Addr: addr, PID: portHolder(addr)}
	}
	if err != nil {
		return fmt.Errorf("embedded broker: %s: %w", name, err)
	}
	if err := l.Close(); err != nil {
		return fmt.Errorf("embedded broker: %s: %w", name, err)
	}
	return nil
}

func processName(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(name)))
}

// portHolder finds the process that listens on addr's port, as far as this
// user may see; 0 if none is found.
func portHolder(addr string) int {
	_, digits, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return 0
	}
	sockets := make(map[string]bool)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // not Linux, or no IPv6
		}
		for _, inode := range listeners(string(text), uint16(port)) {
			sockets["socket:["+inode+"]"] = true
		}
	}
	if len(sockets) == 0 {
		return 0
	}
	open, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0
	}
	for _, fd := range open {
		if target, err := os.Readlink(fd); err == nil && sockets[target] {
			pid, _ := strconv.Atoi(strings.Split(fd, "/")[2]) // the pattern has digits there
			return pid
		}
	}
	return 0
}

// listeners returns the inodes of the sockets in a table of /proc/net that
// listen on port.
func listeners(table string, port uint16) []string {
	const (
		local  = 1    // hex address:port
		state  = 3    // of the connection
		listen = "0A" // TCP_LISTEN
		inode  = 9
	)
	suffix := fmt.Sprintf(":%04X", port)
	var found []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > inode && f[state] == listen && strings.HasSuffix(f[local], suffix) {
			found = append(found, f[inode])
		}
	}
	return found
}
